"""Values that describe instances to people and programs; `pool_views` makes them. Needs no processes."""

from __future__ import annotations

from collections.abc import Callable

import msgspec


class ColdStarts(msgspec.Struct, frozen=True):
    """Durations of starts, from the request to the first possible run.

    Attributes:
        latest: Seconds of recent starts, oldest first.
        count: How many there were since the node started.
        seconds: Their sum.
    """

    latest: tuple[float, ...] = ()
    count: int = 0
    seconds: float = 0.0


class FailedStart(msgspec.Struct, frozen=True):
    """Reason for which the latest instance of a function did not start.

    Attributes:
        cause: The exception of its `init` hook, with the hook's name, or how it ended.
        next_start: The earliest time of the next attempt, µs since the epoch.
        running: Whether other instances of the function run meanwhile.
    """

    cause: str
    next_start: int
    running: bool


FailedStarts = Callable[[str], FailedStart | None]
"""Takes a function's full name; returns None if its instances start."""


class InstanceView(msgspec.Struct, frozen=True, kw_only=True):
    """Description of an instance; `memory` is its private bytes, without shared ones."""

    id: str
    pid: int
    app: str
    function: str
    version: str
    state: str
    age: float
    invocations: int
    memory: int


def every_start_succeeds(_function: str) -> FailedStart | None:
    """Return None: for functions that run in the host itself."""
    return None
