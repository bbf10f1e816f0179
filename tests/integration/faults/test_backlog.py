"""One host killed amid its backlog."""

from __future__ import annotations

from tests.integration.faults.backlog import keep_backlog
from tests.integration.faults.results import RESTART_S
from tests.integration.faults.sites import Site


def test_a_backlog_outlives_its_host_which_is_back_within_seconds(place: Site) -> None:
    found = keep_backlog(place, 2, 1)
    assert found.findings == []
    assert found.figures["slowest_first_event_s"] <= RESTART_S
