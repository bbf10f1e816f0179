"""A smoke share of the pauses."""

from __future__ import annotations

from tests.integration.faults.load import TIMEOUT_S
from tests.integration.faults.pauses import (
    LATE_S,
    kill_host_of_stopped,
    pause_hosts,
    pause_instances,
    pause_zygotes,
)
from tests.integration.faults.sites import Site


def test_an_instance_stopped_beyond_its_timeout_is_killed_and_its_events_run_again(
    place: Site,
) -> None:
    found = pause_instances(place, 3, 1)
    assert found.findings == []
    assert found.figures["slowest_kill_s"] < TIMEOUT_S + 2 * LATE_S


def test_a_host_stopped_for_seconds_goes_on_rightly(place: Site) -> None:
    assert pause_hosts(place, 2, 2).findings == []


def test_a_stopped_instance_does_not_outlive_its_host(place: Site) -> None:
    assert kill_host_of_stopped(place, 2, 3).findings == []


def test_a_zygote_that_hangs_is_found_out_and_replaced(place: Site) -> None:
    assert pause_zygotes(place, 1, 4).findings == []
