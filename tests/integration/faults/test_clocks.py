"""A smoke share of the clock jumps; needs libfaketime."""

from __future__ import annotations

from tests.integration.faults.clocks import jump_clocks, why_no_jumps
from tests.integration.faults.sites import Site
from tests.services.servers import absent


def test_a_clock_that_jumps_fires_nothing_early_or_twice_and_harms_no_lease(place: Site) -> None:
    if why_no_jumps():
        absent("libfaketime is not installed", "on Debian `apt-get install faketime` brings it")
    assert jump_clocks(place, 4, 1).findings == []
