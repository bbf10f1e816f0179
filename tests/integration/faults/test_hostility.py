"""Every attack once, on a whole node."""

from __future__ import annotations

from tests.integration.faults.hostility import attack
from tests.integration.faults.sites import Site


def test_hostile_handlers_cost_their_instances_and_nothing_else(place: Site) -> None:
    assert attack(place, 1, 1).findings == []
