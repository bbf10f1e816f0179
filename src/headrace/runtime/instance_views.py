"""Values that describe instances to people and programs; `pool_views` makes them. Needs no processes."""

from __future__ import annotations

from collections.abc import Callable

import msgspec


class ColdStarts(msgspec.Struct, frozen=True):
    """How long starts took, from lease to hello.

    Attributes:
        latest: Seconds of recent ones, oldest first.
        count: How many there were since the node started.
        seconds: What they took together.
    """

    latest: tuple[float, ...] = ()
    count: int = 0
    seconds: float = 0.0


class FailedStart(msgspec.Struct, frozen=True):
    """Why the latest instance of a function did not start.

    Attributes:
        cause: What its `init` hook raised and which one that was, or how it ended.
        next_start: When another one is tried at the earliest, µs since the epoch.
        running: Whether other instances of the function run meanwhile.
    """

    cause: str
    next_start: int
    running: bool


FailedStarts = Callable[[str], FailedStart | None]
"""Of the function of this full name; None where instances start."""


class InstanceView(msgspec.Struct, frozen=True, kw_only=True):
    """What one may know of an instance; `memory` is its own bytes, not those it shares."""

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
    """Where functions run in the host itself."""
    return None
