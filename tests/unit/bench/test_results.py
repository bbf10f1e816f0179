import copy
from pathlib import Path
from typing import Any

import pytest
from bench.page import BEGIN, END, PageHasNoPlace, rewrite
from bench.results import NotComparable, compare, write

MACHINE = {"id": "a", "cpu": "x", "cores": 2.0, "memory_gib": 8.0, "kernel": "6", "python": "3.11"}


def result(
    *,
    median: float = 100.0,
    low: float = 95.0,
    high: float = 105.0,
    bound: str = ">=",
    **changed: Any,
) -> dict[str, Any]:
    return {
        "date": "2026-11-21T10:00:00+00:00",
        "commit": "abc",
        "quick": False,
        "machine": dict(MACHINE),
        "metrics": [
            {
                "number": "6a",
                "name": "stream",
                "unit": "events/s",
                "ours": {"median": median, "low": low, "high": high},
                "targets": [{"bound": bound}],
            }
        ],
        **changed,
    }


def test_results_of_different_machines_are_not_compared() -> None:
    other = result()
    other["machine"]["cpu"] = "y"
    with pytest.raises(NotComparable, match="cpu `x` and `y`"):
        compare(result(), other)


def test_a_quick_run_is_compared_with_nothing() -> None:
    with pytest.raises(NotComparable, match="--quick"):
        compare(result(), result(quick=True))


def test_a_change_within_the_spread_is_not_remarked_upon() -> None:
    row = compare(result(), result(median=104.0, low=90.0, high=110.0))[1]
    assert row[4:] == ("+4.0%", "")


def test_a_change_beyond_the_spread_is_called_by_its_direction() -> None:
    assert compare(result(), result(median=120, low=115, high=125))[1][5] == "better"
    assert compare(result(), result(median=80, low=75, high=85))[1][5] == "WORSE"


def test_less_is_better_where_the_target_says_so() -> None:
    slower = result(median=120, low=115, high=125, bound="<=")
    assert compare(result(bound="<="), slower)[1][5] == "WORSE"


def test_a_metric_that_only_one_of_them_has_is_left_out() -> None:
    without = copy.deepcopy(result())
    without["metrics"][0]["ours"] = None
    assert len(compare(result(), without)) == 1


def test_a_second_run_of_a_day_does_not_overwrite_the_first(tmp_path: Path) -> None:
    first, second = write(tmp_path, result()), write(tmp_path, result())
    assert first.name == "2026-11-21-abc.json"
    assert second.name == "2026-11-21-abc-2.json"


def test_a_result_replaces_what_stands_between_the_marks_of_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    target = {
        "words": ">= 0.6x prototype",
        "against": "limits.road --batch 128: per_s",
        "value": 200.0,
        "ratio": 0.5,
        "ratio_low": 0.4,
        "ratio_high": 0.6,
        "met": False,
        "bound": ">=",
    }
    document = result(rounds=5, failures={"peers.slow": "no redis"})
    document["metrics"][0] |= {"targets": [target], "marks": {"peers.fast: per_s": {"median": 7.0}}}
    rewrite(page, document)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    row = next(line for line in text.splitlines() if line.startswith("| 6a "))
    assert (
        "`limits.road --batch 128` | 200 | 0.5x (0.4 to 0.6) | >= 0.6x prototype | MISSED |" in row
    )
    assert "`peers.fast: per_s` | 7" in text
    assert "`peers.slow` (no redis)" in text


def test_a_metric_that_was_measured_twice_is_shown_as_it_was_last(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{BEGIN}\n{END}\n")
    first, second = (
        result(median=median, rounds=rounds, failures={}) for median, rounds in ((1.0, 3), (2.0, 5))
    )
    for document in (first, second):
        document["metrics"][0] |= {"targets": [], "marks": {}}
    first["metrics"].append(first["metrics"][0] | {"number": "10", "name": "recovery"})
    first["metrics"].append(first["metrics"][0] | {"number": "5b", "name": "append"})
    rewrite(page, first, second)
    lines = page.read_text().splitlines()
    assert [line[:9] for line in lines if line.startswith("| ")][1:] == [
        "| 5b | ap",
        "| 6a | st",
        "| 10 | re",
    ]
    assert any(line.startswith("| 6a | stream | 2 ") for line in lines)
    assert any(line.startswith("5b, 10: measured") and "3 rounds" in line for line in lines)
    assert any(line.startswith("6a: measured") and "5 rounds" in line for line in lines)


def test_a_page_without_marks_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing here")
    with pytest.raises(PageHasNoPlace, match="put them back"):
        rewrite(page, result(rounds=5, failures={}))
    assert page.read_text() == "nothing here"
