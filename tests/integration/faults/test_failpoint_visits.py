"""Every named place kills the host once; the campaign does it three times."""

from __future__ import annotations

from tests.integration.faults.failpoint_visits import visit
from tests.integration.faults.sites import Site


def test_a_death_at_every_named_place_loses_and_doubles_nothing(place: Site) -> None:
    assert visit(place, 1, 1).findings == []
