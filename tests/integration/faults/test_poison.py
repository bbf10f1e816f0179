"""Every placement once."""

from __future__ import annotations

from tests.integration.faults.poison import poison
from tests.integration.faults.sites import Site


def test_the_dead_letters_are_the_poison_wherever_it_stands(place: Site) -> None:
    assert poison(place, 1, 1).findings == []
