"""A smoke share of the kills; `__main__` makes the campaign of them."""

from __future__ import annotations

from tests.integration.faults.kills import kill_hosts, kill_instances, kill_zygotes, storm
from tests.integration.faults.sites import Site


def test_a_host_killed_under_load_loses_and_doubles_nothing(place: Site) -> None:
    assert kill_hosts(place, 5, 1).findings == []


def test_instances_killed_under_load_lose_and_double_nothing(place: Site) -> None:
    assert kill_instances(place, 10, 2).findings == []


def test_zygotes_killed_under_load_lose_and_double_nothing(place: Site) -> None:
    assert kill_zygotes(place, 5, 3).findings == []


def test_kills_and_stops_in_a_storm_lose_and_double_nothing(place: Site) -> None:
    assert storm(place, 10, 4).findings == []
