"""A smoke share of the flipped bits."""

from __future__ import annotations

from tests.integration.faults.flips import flip_bits
from tests.integration.faults.sites import Site


def test_a_flipped_bit_is_told_or_harmless(place: Site) -> None:
    found = flip_bits(place, 50, 1)
    assert found.findings == []
    # Else nothing was flipped where it matters.
    assert found.figures["told"] >= 15
