"""One round of everything, at a webhook of a real node."""

from __future__ import annotations

from tests.integration.faults.sites import Site
from tests.integration.faults.webhooks import hostile_webhooks


def test_nothing_hostile_is_accepted_and_honest_senders_are_heard(place: Site) -> None:
    assert hostile_webhooks(place, 1, 1).findings == []
