"""Unix cron, five fields or six with seconds first, in a time zone. Reading is cronsim's.

What daylight saving does: a fixed time that is skipped comes at the moment of the change, one that
comes twice counts once, the first time. Where hours or minutes are `*` every hour counts as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from typing import Final

from cronsim import CronSim, CronSimError

from headrace.model.errors import Misuse
from headrace.sources.schedules.local_time import on_the_clock

NAMED: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    # As crontab(5) expands them.
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


class UnixCron:
    """A cron expression that was read. Pure; may be used from anywhere."""

    def __init__(self, expression: str, zone: tzinfo) -> None:
        self._text = _spelled(expression)
        self._zone: tzinfo = UTC if str(zone) == "UTC" else zone
        fields = self._text.split()
        minute, hour = fields[-5], fields[-4]
        # Vixie cron's rule: with `*` a job runs every hour of the day that the clock shows, also
        # the one that comes twice.
        is_interval = minute.startswith("*") or hour.startswith("*")
        # Five fields are handled by cronsim; with seconds it ignores daylight saving.
        self._by_wall = len(fields) == 6 and not is_interval and self._zone is not UTC
        try:
            # Fails at deployment, not at the first date: cronsim finds `30 2 31 2 *` impossible
            # only when it searches.
            next(self.times(datetime(2026, 1, 1, tzinfo=UTC)))
        except (CronSimError, StopIteration) as error:
            why = str(error) or "no date will ever fit it"
            raise Misuse(
                f"`{expression}` is not a cron expression: {why}; the fields are minute, hour, day, "
                "month, weekday, with seconds first where there are six"
            ) from error

    def times(self, after: datetime) -> Iterator[datetime]:
        """Every time after `after` (an aware datetime), ascending, without end."""
        local = after.astimezone(self._zone)
        last = after
        start = local.replace(tzinfo=None) if self._by_wall else local
        for found in CronSim(self._text, start):
            moment = on_the_clock(found, self._zone) if self._by_wall else found
            # Times that fall into a change of the clock can meet, or lie behind us.
            if (at := moment.astimezone(UTC)) > last:
                last = at
                yield at


def _spelled(expression: str) -> str:
    text = expression.strip()
    if text.startswith("@"):
        if text.lower() not in NAMED:
            raise Misuse(f"`{text}` is unknown; there are {', '.join(NAMED)}")
        return NAMED[text.lower()]
    return text
