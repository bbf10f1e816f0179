import pytest
from bench.metrics import Metric, Target, at_least, at_most, lettered, read
from bench.report import render, target_text
from bench.rows import METRICS
from bench.turns import Measured
from bench.verdicts import Line, judge

OURS = read("workloads.ours", "per_s")
LIMIT = read("limits.road --batch 1", "per_s")
SLOW, FAST = read("peers.slow", "per_s"), read("peers.fast", "per_s")


def line_of(metric: Metric, **figures: list[float]) -> tuple[Line, Measured]:
    """The judged line, with `ours=[...]`, `limit=[...]`, `slow=[...]` and `fast=[...]` measured."""
    known = {"ours": OURS, "limit": LIMIT, "slow": SLOW, "fast": FAST}
    measured = Measured({known[name]: samples for name, samples in figures.items()})
    return judge([metric], measured)[0], measured


def metric(*targets: Target) -> Metric:
    return Metric(6, "stream", "events/s", OURS, targets)


def test_a_ratio_is_taken_between_medians_and_its_range_between_rounds() -> None:
    line, _ = line_of(metric(at_least(0.5, LIMIT)), ours=[60, 80, 10], limit=[100, 100, 100])
    judged = line.judged[0]
    assert judged.met is True
    assert judged.ratio == pytest.approx(0.6)
    assert [judged.low, judged.high] == pytest.approx([0.1, 0.8])


def test_more_than_every_peer_means_more_than_the_fastest() -> None:
    line, _ = line_of(metric(at_least(2, SLOW, FAST)), ours=[300], slow=[10], fast=[200])
    assert line.judged[0].best == FAST
    assert line.met is False


def test_less_than_every_peer_means_less_than_the_quickest() -> None:
    line, _ = line_of(metric(at_most(1, SLOW, FAST)), ours=[9], slow=[50], fast=[10])
    assert line.judged[0].best == FAST
    assert line.met is True


def test_what_comes_on_top_of_a_factor_counts() -> None:
    target = at_most(1.2, LIMIT, plus=30)
    assert line_of(metric(target), ours=[150], limit=[100])[0].met is True
    assert line_of(metric(target), ours=[151], limit=[100])[0].met is False


def test_an_absolute_bound_needs_nothing_beside_it() -> None:
    assert line_of(metric(at_most(10)), ours=[10])[0].met is True
    assert line_of(metric(at_most(10)), ours=[10.1])[0].met is False


def test_what_could_not_be_measured_is_neither_met_nor_missed() -> None:
    line, measured = line_of(metric(at_least(1, LIMIT), at_least(20, FAST)), ours=[5], limit=[1])
    assert line.met is None
    assert "not measured" in render([line], measured, quick=False)


def test_a_missed_target_is_missed_whatever_else_is_unknown() -> None:
    line, _ = line_of(metric(at_least(1, LIMIT), at_least(20, FAST)), ours=[5], limit=[10])
    assert line.met is False


def test_a_metric_without_figures_of_ours_is_not_met() -> None:
    assert line_of(metric(at_least(1, LIMIT)), limit=[10])[0].met is None


def test_a_small_factor_reads_as_a_fraction() -> None:
    assert target_text(at_most(1 / 90, FAST, label="spawn"), "ms") == "<= 1/90 spawn"
    assert target_text(at_most(1.2, LIMIT, plus=30), "ms") == "<= 1.2x limit + 30 ms"


def test_figures_of_one_row_are_told_apart_by_letters() -> None:
    first, second, only = lettered([metric(), metric(), Metric(10, "recovery", "s", OURS, ())])
    assert (first.number, second.number, only.number) == ("6a", "6b", "10")


def test_every_core_row_has_a_figure_and_every_number_is_its_own() -> None:
    assert {each.row for each in METRICS} >= set(range(1, 14))
    assert len({each.number for each in METRICS}) == len(METRICS)


def test_every_program_of_the_table_exists() -> None:
    from importlib.util import find_spec

    for module in {r.program.module for each in METRICS for r in each.readings()}:
        assert find_spec(f"bench.{module}"), module
