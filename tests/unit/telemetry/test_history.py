"""History of runs and log lines: bounded in number and in bytes."""

from __future__ import annotations

from headrace.telemetry.history import MAX_FAILED, MAX_LINES, MAX_LINES_BYTES, RunHistory, RunRecord


def said(runs: RunHistory, text: str) -> None:
    runs.write(time=1, function="f", instance="i", key="k", level="INFO", text=text)


def test_lines_are_remembered_up_to_a_number_and_the_oldest_go_first() -> None:
    runs = RunHistory()
    for number in range(MAX_LINES + 10):
        said(runs, str(number))
    found = runs.logs(limit=2 * MAX_LINES)
    assert [found[0].text, found[-1].text] == ["10", str(MAX_LINES + 9)]
    assert len(found) == MAX_LINES


def test_long_lines_are_remembered_up_to_so_many_bytes() -> None:
    runs = RunHistory()
    size = MAX_LINES_BYTES // 100
    for _ in range(250):
        said(runs, "x" * size)
    assert len(runs.logs(limit=1_000)) == 100
    said(runs, "short")
    assert runs.logs(limit=1_000)[-1].text == "short"


def test_runs_and_lines_are_listed_of_the_functions_that_may_be_seen() -> None:
    runs = RunHistory()
    for number in range(3 * MAX_FAILED):
        function = f"shop.{'ab'[number % 2]}"
        outcome = "failed" if number % 3 == 0 else "succeeded"
        runs.record(RunRecord(function, "k", "i", number, 0.1, 1, 1, outcome, "orders/0/3"))
        runs.write(time=0, function=function, instance="i", key="", level="info", text=f"{number}")
    only = "shop.a".__eq__
    last = 3 * MAX_FAILED - 1
    assert [run.started for run in runs.recent(limit=2)] == [last, last - 1]
    assert [run.started for run in runs.recent(limit=2, of=only)] == [last - 1, last - 3]
    assert [run.started for run in runs.failed(2)] == [last - 2, last - 5]
    assert [run.started for run in runs.failed(2, only)] == [last - 5, last - 11]
    assert len(runs.failed()) == MAX_FAILED
    assert [line.text for line in runs.logs(limit=2, of=only)] == [f"{last - 3}", f"{last - 1}"]
    assert [line.number for line in runs.logs(limit=9, after=last - 1)] == [last, last + 1]
