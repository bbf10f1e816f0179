"""Flow control as values: how many at once, how often, how late, and what may be left out.

Written at a function, like its other policies. What waits stays in the log; what is left out
(`Sample`, `Debounce`, `Singleton("skip")`) counts as done, is counted by name and logged.
Durations are seconds, texts such as `"5m"`, or `timedelta`s. Events without a key count as one key.
"""

from __future__ import annotations

from typing import Literal

from headrace.model.due_time import PRIORITY
from headrace.model.durations import MaybeSeconds, Seconds, keep_seconds
from headrace.model.errors import Misuse
from headrace.model.policy import MAX_FLOW_LIMIT, MAX_FLOW_SECONDS
from headrace.model.policy_struct import PolicyStruct, default


def _require(holds: bool, what: str, fix: str) -> None:
    if not holds:
        raise Misuse(f"{what}; {fix}")


class Concurrency(PolicyStruct, frozen=True, forbid_unknown_fields=True):
    """At most this many runs at once, on this node; the others wait.

    Attributes:
        limit: Runs of the function over all its partitions; 1 to 1,000,000.
        key_limit: Runs that hold events of one key; None means no limit of its own. A
            function with `order="key"` has one by nature.
    """

    limit: int = MAX_FLOW_LIMIT
    key_limit: int | None = None

    def __post_init__(self) -> None:
        _whole("Concurrency", "limit", self.limit)
        if self.key_limit is not None:
            _whole("Concurrency", "key_limit", self.key_limit)


class Throttle(PolicyStruct, frozen=True, forbid_unknown_fields=True):
    """At most `limit` runs begin in `per`, evenly spaced; the others wait.

    Attributes:
        limit: Runs, 1 to 1,000,000.
        per: A time, up to a year.
        burst: How many may begin back to back after a quiet time, 1 to 1,000,000.
        per_key: Whether every key has a throttle of its own.
    """

    limit: int
    per: Seconds = default(1.0)
    burst: int = 1
    per_key: bool = False

    def __post_init__(self) -> None:
        _whole("Throttle", "limit", self.limit)
        _whole("Throttle", "burst", self.burst)
        keep_seconds(self, "per", low=0.000_001, high=MAX_FLOW_SECONDS)


class Sample(PolicyStruct, frozen=True, forbid_unknown_fields=True):
    """A token bucket over the events' own times: what exceeds it is left out.

    The bucket holds `limit` tokens and is refilled evenly over `per`. Judged by when the
    log took the events, so that a backlog is judged as it would have been at the time.

    Attributes:
        limit: Events, 1 to 1,000,000.
        per: A time, up to a year.
        per_key: Whether every key has a bucket of its own; else every partition has one.
    """

    limit: int
    per: Seconds = default(1.0)
    per_key: bool = True

    def __post_init__(self) -> None:
        _whole("Sample", "limit", self.limit)
        keep_seconds(self, "per", low=0.000_001, high=MAX_FLOW_SECONDS)


class Debounce(PolicyStruct, frozen=True, forbid_unknown_fields=True):
    """Only the last event of a key counts, once the key has been quiet for so long.

    Attributes:
        seconds: The quiet time, up to a year.
        longest: The time after the first event at which the last one goes, quiet or not; None
            waits as long as it takes.
    """

    seconds: Seconds
    longest: MaybeSeconds = default(None)

    def __post_init__(self) -> None:
        for name in ("seconds", "longest"):
            keep_seconds(self, name, low=0.000_001, high=MAX_FLOW_SECONDS)
        _require(
            self.longest is None or self.seconds <= self.longest,
            f"`Debounce({self.seconds:g}, longest={self.longest!r})` cannot hold",
            "use a `longest` from `seconds` to a year, or None",
        )


class Singleton(PolicyStruct, frozen=True, forbid_unknown_fields=True):
    """One run of a key at a time, with one event.

    Attributes:
        otherwise: What becomes of events that come while one of their key runs or is tried
            again: `skip` leaves them out, `wait` runs them afterwards.
    """

    otherwise: Literal["skip", "wait"] = "skip"

    def __post_init__(self) -> None:
        _require(
            self.otherwise in {"skip", "wait"},
            f"`Singleton({self.otherwise!r})` is unknown",
            "use `skip` or `wait`",
        )


class Priority(PolicyStruct, frozen=True, forbid_unknown_fields=True):
    """Priority of waiting events: each goes ahead of what came up to N seconds before it.

    So a high priority overtakes, and a low one is never starved. Order within a key stays.

    Attributes:
        header: The header that holds N, from -86,400 to 86,400; events without it have 0.
    """

    header: str = PRIORITY

    def __post_init__(self) -> None:
        _require(bool(self.header), "`Priority('')` names no header", "name one")


def _whole(kind: str, name: str, value: object) -> None:
    _require(
        isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_FLOW_LIMIT,
        f"`{kind}({name}={value!r})` is out of range",
        f"use 1 to {MAX_FLOW_LIMIT:,}",
    )
