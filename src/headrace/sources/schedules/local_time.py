"""A time on the wall -> a moment: what a change of the clock skips is the moment of the change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo


def on_the_clock(wall: datetime, zone: tzinfo) -> datetime:
    """The moment when the clocks of `zone` first show `wall` (without a zone), or first show more."""
    moment = wall.replace(tzinfo=zone, fold=0)
    # A wall time that does not exist changes on its way to UTC and back. `fold=0` takes the first
    # of two.
    while moment != moment.astimezone(UTC).astimezone(zone):
        # Minute by minute to the end of the gap: zones change the clock at whole minutes.
        wall = wall.replace(second=0, microsecond=0) + timedelta(minutes=1)
        moment = wall.replace(tzinfo=zone, fold=0)
    return moment
