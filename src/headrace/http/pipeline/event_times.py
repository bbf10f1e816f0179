"""Times as producers write them -> microseconds since the epoch."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import msgspec

from headrace.model.errors import Invalid

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LAST = 253_402_300_799.0
"""The end of the year 9999, in seconds since the epoch: the last time that `datetime` and RFC 3339 have."""


def micros_of(value: float | datetime) -> int:
    """Convert seconds since the epoch, or an RFC 3339 time, to microseconds.

    Raises:
        Invalid: It is before 1970 or after the year 9999, or has no offset from UTC.
    """
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise Invalid(
                f"the time `{value.isoformat()}` has no offset from UTC; write it as "
                f"`{value.isoformat()}Z`"
            )
        # Not by `timestamp()`: a float has too few digits for the microseconds of distant years.
        micros = (value - _EPOCH) // _MICROSECOND
        if micros < 0:
            raise Invalid(f"the time `{value.isoformat()}` lies before 1970")
        return micros
    if not math.isfinite(value) or not 0 <= value <= _LAST:
        raise Invalid(
            f"the time `{value:g}` is not a time in seconds since 1970; "
            "divide milliseconds by 1,000, or write RFC 3339"
        )
    return round(value * 1_000_000)


def parse_time(text: str) -> int:
    """Convert an RFC 3339 time to microseconds since the epoch.

    Raises:
        Invalid: It is not an RFC 3339 time.
    """
    try:
        moment = msgspec.convert(text, datetime)
    except msgspec.ValidationError as error:
        raise Invalid(
            f"`{text}` is not an RFC 3339 time; write it like `2026-01-31T12:00:00Z`"
        ) from error
    return micros_of(moment)
