"""Triggers of the calendar, as authors write them: `Cron`, `Every`, `At`.

What can be judged without a calendar is judged here, when the trigger is written; expressions and
time zones are read by `triggers/schedules` when the app is deployed. Times are the wall clock's.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Literal

import msgspec
from msgspec.structs import force_setattr

from headrace.model.durations import MaybeSeconds, Seconds, keep_seconds
from headrace.model.errors import Misuse
from headrace.model.policy_struct import PolicyStruct, default

Misfire = Literal["once", "skip", "all"]

MIN_PERIOD_S: Final = 0.1
MAX_PERIOD_S: Final = 366 * 86_400.0
MAX_EXPRESSION: Final = 256


class Cron(PolicyStruct, frozen=True, tag="cron"):
    """The calendar says it is time.

    Attributes:
        expression: Unix cron with five fields, or six with seconds first (`"0 7 * * MON-FRI"`);
            `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`; or what AWS writes:
            `cron(0 7 ? * MON-FRI *)`, `rate(5 minutes)`.
        tz: The IANA time zone the expression is read in. A time that daylight saving skips fires
            at the moment of the change (AWS expressions leave it out, as AWS does); one that comes
            twice fires at its first coming only, unless the hours or minutes are `*`.
        misfire: What becomes of times over a minute past, because no node was up: `once` makes one
            event of them, `skip` leaves them out, `all` makes one of each (the latest 1,000).
        payload: The event's value, JSON; without it the value says which time was meant.
    """

    expression: str
    tz: str = "UTC"
    misfire: Misfire = "once"
    payload: Any = None

    def __post_init__(self) -> None:
        """Refuse what is not an expression at all.

        Raises:
            Misuse: Naming the expression and what to write.
        """
        text: Any = self.expression
        if not isinstance(text, str) or not text.strip() or len(text) > MAX_EXPRESSION:
            raise Misuse(f'`Cron({text!r})` is not an expression; write one such as `"0 7 * * *"`')
        words = text.split()
        is_named = text.startswith("@") or text.endswith(")")
        if not is_named and len(words) not in {5, 6}:
            raise Misuse(
                f"`Cron({text!r})` has {len(words)} fields; write five (minute hour day month "
                "weekday), or six with seconds first"
            )
        _check(f"Cron({text!r})", self.tz, self.misfire, self.payload)


class Every(PolicyStruct, frozen=True, tag="every"):
    """A fixed time has passed since the last time, counted from when the app was first deployed.

    Attributes:
        period: A time, such as `"5m"` or `"1h30m"`; from 0.1 s to 366 days.
        misfire: As for `Cron`.
        payload: As for `Cron`.
    """

    period: Seconds
    misfire: Misfire = "once"
    payload: Any = None

    def __post_init__(self) -> None:
        """Keep the period as seconds.

        Raises:
            Misuse: It is not a duration, or out of range.
        """
        what = f"the period of `Every({self.period!r})`"
        keep_seconds(self, "period", low=MIN_PERIOD_S, high=MAX_PERIOD_S, what=what)
        _check(f"Every({self.period!r})", "UTC", self.misfire, self.payload)

    @property
    def seconds(self) -> float:
        """The period."""
        return self.period


class At(PolicyStruct, frozen=True, tag="at"):
    """A moment has come: once, or again and again from then on.

    Attributes:
        when: A `datetime`, or ISO 8601 text; one without an offset is read in `tz`: a time that
            daylight saving skips is the moment of the change, one that comes twice its first
            coming. A moment that is past when the app is first deployed does not fire.
        tz: An IANA time zone.
        every: A time such as `"1d"`: fires again after each. For "every day at nine"
            write `Cron`, which knows daylight saving.
        misfire: As for `Cron`.
        payload: As for `Cron`.
    """

    when: Any
    tz: str = "UTC"
    every: MaybeSeconds = default(None)
    misfire: Misfire = "once"
    payload: Any = None

    def __post_init__(self) -> None:
        """Keep the moment as text and the period as seconds.

        Raises:
            Misuse: One of them cannot be read.
        """
        what = f"At({self.when!r})"
        if isinstance(self.when, datetime):
            force_setattr(self, "when", self.when.isoformat())
        try:
            datetime.fromisoformat(self.when)
        except (TypeError, ValueError) as error:
            raise Misuse(
                f'`{what}` is not a moment ({error}); write a datetime, or "2026-12-24T18:00"'
            ) from error
        period = f"`every=` of `{what}`"
        keep_seconds(self, "every", low=MIN_PERIOD_S, high=MAX_PERIOD_S, what=period)
        _check(what, self.tz, self.misfire, self.payload)


Schedule = Cron | Every | At


def _check(what: str, tz: object, misfire: object, payload: object) -> None:
    if not isinstance(tz, str) or not tz:
        raise Misuse(f'`{what}`: `tz={tz!r}` is not a time zone; write its name, "Europe/Berlin"')
    if misfire not in {"once", "skip", "all"}:
        raise Misuse(f"`{what}`: `misfire={misfire!r}` is unknown; use `once`, `skip` or `all`")
    try:
        msgspec.msgpack.encode(payload)
        msgspec.json.encode(payload)
    except (TypeError, ValueError, OverflowError) as error:
        raise Misuse(
            f"`{what}`: `payload=` cannot be JSON ({error}); write what JSON has"
        ) from error
