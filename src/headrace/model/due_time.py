"""Due time and priority of a queue's message, as they travel: in headers. Pure.

`headrace-delay` says how long after it was taken (`30`, `24h`), `headrace-delay-until` says when (RFC 3339). A producer
gives `delay=` or `at=`; the part that takes messages in asks `wait_of`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from headrace.model.durations import Duration, seconds_in
from headrace.model.errors import Invalid, Misuse
from headrace.model.policy import MAX_DELAY

DELAY: Final = "headrace-delay"
UNTIL: Final = "headrace-delay-until"
Moment = datetime | float | str
"""A date as it may be given: an aware datetime, seconds since the epoch, or RFC 3339 text."""

PRIORITY: Final = "headrace-priority"
MAX_AHEAD_S: Final = 86_400

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_LAST_S: Final = 253_402_300_799


def queue_headers(
    delay: Duration | None, at: Moment | None, priority: int | None = None
) -> dict[str, str]:
    """The headers that say when a message may be received, and how far it goes ahead.

    Raises:
        Misuse: Both times are given, or something cannot be.
    """
    found = {} if priority is None else {PRIORITY: f"{_ahead(priority)}"}
    if delay is not None and at is not None:
        raise Misuse(f"`delay={delay!r}` and `at={at!r}` both say when; give one of them")
    if delay is not None:
        found[DELAY] = f"{seconds_in(delay, '`delay=`', low=0, high=MAX_DELAY):.15g}"
    if at is not None:
        found[UNTIL] = _moment(at).isoformat()
    return found


def _ahead(priority: int) -> int:
    given: object = priority
    if not isinstance(given, int) or isinstance(given, bool) or abs(given) > MAX_AHEAD_S:
        raise Misuse(
            f"`priority={priority!r}` is not a priority; use whole seconds by which the message goes "
            f"ahead, -{MAX_AHEAD_S:,} to {MAX_AHEAD_S:,}"
        )
    return given


def wait_of(headers: Mapping[str, str] | None, usual: float, now: int | None) -> float:
    """Seconds before a message with these headers may be received.

    Args:
        headers: The message's.
        usual: Seconds, where they say nothing.
        now: Microseconds since the epoch; None looks only at how the headers are written.

    Raises:
        Invalid: They say what cannot be.
    """
    if not headers or (DELAY not in headers and UNTIL not in headers):
        return usual
    if DELAY in headers and UNTIL in headers:
        raise Invalid(f"a message has both headers `{DELAY}` and `{UNTIL}`; send one of them")
    try:
        if DELAY in headers:
            what = f"the header `{DELAY}` of a message"
            return seconds_in(headers[DELAY], what, low=0, high=MAX_DELAY)
        due = (_moment(headers[UNTIL]) - _EPOCH) // _MICROSECOND
    except Misuse as error:
        raise Invalid(f"{error}") from error
    if now is None:
        return 0.0
    if due - now > MAX_DELAY * 1_000_000:
        raise Invalid(f"a message is to wait until {headers[UNTIL]}; a year is the most it can")
    return max(0, due - now) / 1_000_000


def _moment(at: Moment) -> datetime:
    given: object = at
    if isinstance(given, str):
        try:
            given = datetime.fromisoformat(given)
        except ValueError as error:
            raise Misuse(f'`at={at!r}` is not a date; write "2026-12-24T18:00:00Z"') from error
    if isinstance(given, datetime):
        if given.tzinfo is None:
            raise Misuse(f"`at={at!r}` has no time zone; add one, such as `tzinfo=UTC` or a `Z`")
        return given
    if isinstance(given, (int, float)) and not isinstance(given, bool) and 0 <= given <= _LAST_S:
        return _EPOCH + timedelta(seconds=given)
    raise Misuse(
        f"`at={at!r}` is not a date; give an aware datetime, seconds since the epoch, or RFC 3339"
    )
