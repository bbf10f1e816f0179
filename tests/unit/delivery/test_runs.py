"""What is remembered of runs and lines has a bound, in numbers and in bytes."""

from __future__ import annotations

from headrace.delivery.runs import MAX_LINES, MAX_LINES_BYTES, Runs


def said(runs: Runs, text: str) -> None:
    runs.write(time=1, function="f", instance="i", key="k", level="INFO", text=text)


def test_lines_are_remembered_up_to_a_number_and_the_oldest_go_first() -> None:
    runs = Runs()
    for number in range(MAX_LINES + 10):
        said(runs, str(number))
    found = runs.logs(limit=2 * MAX_LINES)
    assert [found[0].text, found[-1].text] == ["10", str(MAX_LINES + 9)]
    assert len(found) == MAX_LINES


def test_long_lines_are_remembered_up_to_so_many_bytes() -> None:
    runs = Runs()
    size = MAX_LINES_BYTES // 100
    for _ in range(250):
        said(runs, "x" * size)
    assert len(runs.logs(limit=1_000)) == 100
    said(runs, "short")
    assert runs.logs(limit=1_000)[-1].text == "short"
