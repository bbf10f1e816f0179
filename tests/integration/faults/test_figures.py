"""The page of figures shows what the recorded campaigns found, and the smoke share visits all faults."""

from __future__ import annotations

from tests.integration.faults.campaign import FAULTS, total
from tests.integration.faults.failpoint_visits import ELSEWHERE, PASSES
from tests.integration.faults.figures import PAGE, kept, shown, table
from tests.integration.faults.results import Result

from headrace.environment.failpoints import LABELS


def test_the_page_shows_the_recorded_campaigns_and_nothing_else() -> None:
    page = PAGE.read_text()
    assert page == shown(page, kept())


def test_a_round_that_failed_stands_in_the_table_and_takes_the_bound_away() -> None:
    good = Result(fault="kill", times=10, events=5, figures={"slowest_start_s": 0.5})
    bad = Result(fault="kill", times=10, events=7, findings=["I1: lost"])
    run = {"date": "2026-01-01", "commit": "abc", "machine": "m", "seed": 1}
    clean = table([run | {"rows": [total("kill", [good, good])]}])
    assert "| kill | 20 | 10 | 0 of 2 | 15 % | 0.50 s |" in clean
    broken = table(
        [run | {"rows": [total("kill", [good])]}, run | {"rows": [total("kill", [bad])]}]
    )
    assert "| kill | 20 | 12 | 1 of 2 | - | 0.50 s |" in broken
    assert "2 recorded campaigns" in broken


def test_every_failpoint_is_visited_here_or_known_to_be_elsewhere() -> None:
    families = {label.partition(":")[0] for label in LABELS}
    assert families == PASSES.keys() | ELSEWHERE


def test_the_long_campaign_makes_every_fault_more_often_than_a_push() -> None:
    assert all(fault.smoke < fault.long for fault in FAULTS)
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
