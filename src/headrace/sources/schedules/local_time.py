"""A time on the wall -> a moment: what a change of the clock skips is the moment of the change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo


def on_the_clock(wall: datetime, zone: tzinfo) -> datetime:
    """The moment when the clocks of `zone` first show `wall` (without a zone), or first show more."""
    moment = wall.replace(tzinfo=zone, fold=0)
    while moment != moment.astimezone(UTC).astimezone(zone):
        wall = wall.replace(second=0, microsecond=0) + timedelta(minutes=1)
        moment = wall.replace(tzinfo=zone, fold=0)
    return moment
