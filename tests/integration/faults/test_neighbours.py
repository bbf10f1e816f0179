"""A smoke share of misbehaviour beside a quick neighbour."""

from __future__ import annotations

from tests.integration.faults.neighbours import neighbours
from tests.integration.faults.sites import Site

NOISE = 5.0
"""A push shares its machine with whatever else it does; the campaign holds the ratio to 2."""


def test_a_neighbour_hardly_notices_a_function_that_misbehaves(place: Site) -> None:
    found = neighbours(place, 1, 1)
    assert [finding for finding in found.findings if not finding.startswith("I10")] == []
    assert found.figures["worst_p99_ratio"] < NOISE
