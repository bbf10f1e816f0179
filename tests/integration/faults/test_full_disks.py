"""A smoke share of the full disks; needs root to mount a small one."""

from __future__ import annotations

import os

import pytest
from tests.integration.faults.full_disks import fill_disk
from tests.integration.faults.sites import Site

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")


def test_a_full_disk_refuses_producers_finishes_what_it_has_and_heals(place: Site) -> None:
    assert fill_disk(place, 2, 1).findings == []
