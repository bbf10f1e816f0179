"""A smoke share of the clock jumps; needs libfaketime."""

from __future__ import annotations

import pytest
from tests.integration.faults.clocks import jump_clocks, why_no_jumps
from tests.integration.faults.sites import Site

pytestmark = pytest.mark.skipif(bool(why_no_jumps()), reason=why_no_jumps())


def test_a_clock_that_jumps_fires_nothing_early_or_twice_and_harms_no_lease(place: Site) -> None:
    assert jump_clocks(place, 4, 1).findings == []
