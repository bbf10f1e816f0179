"""A smoke share of the floods: 50,000 events at a consumer that takes 50 a second."""

from __future__ import annotations

from tests.integration.faults.floods import flood
from tests.integration.faults.sites import Site


def test_a_flood_is_slowed_down_and_kept_and_does_not_grow_the_node(place: Site) -> None:
    assert flood(place, 1, 1).findings == []
