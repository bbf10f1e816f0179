"""A smoke share of the disks that fail under a live node."""

from __future__ import annotations

from tests.integration.faults.bad_disks import break_disks, refuse
from tests.integration.faults.sites import Site


def test_a_failing_write_fsync_or_read_loses_nothing_that_was_acknowledged(place: Site) -> None:
    assert break_disks(place, 6, 1).findings == []


def test_a_store_that_takes_nothing_for_a_while_keeps_the_dead_letters_exact(place: Site) -> None:
    assert refuse(place, 2, 2).findings == []
