"""Plan of a simulated run, as plain values: functions, events, actions, faults and scenes.

`plan` draws them from a seed, `run` carries them out, and a failing run is printed with them.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from headrace.model.flow_control import Concurrency, Debounce, Priority, Sample, Singleton, Throttle
from headrace.model.policy import (
    Breaker,
    Commit,
    EventOrder,
    OnFailure,
    Retry,
)
from headrace.simulation.scenes.selection import PlannedScene
from headrace.testing.faults import Fault

Shape = Literal["single", "async", "batch", "done", "failures", "async batch"]
Deed = Literal[
    "publish",
    "crash",
    "crash at",
    "take over",
    "thaw",
    "skew",
    "redrive",
    "heal",
    "pause",
    "resume",
    "reset",
    "discard",
    "sweep",
    "drain",
    "reload",
    "reload otherwise",
    "reload without",
]

HORIZON_S: Final = 6.0
TIMEOUT_S: Final = 2.0
LABELS: Final = (
    "pump:after-read",
    "pump:before-invoke",
    "pump:after-invoke",
    "pump:after-commit",
    "commit:before-write",
    "commit:after-fsync",
    "dead-letter:before-commit",
    "claim:before-write",
    "claim:after-write",
    "recovery:claimed",
)


class PlannedFunction(msgspec.Struct, frozen=True):
    """One function, and which events it cannot take.

    Attributes:
        poison: Events it fails on, for ever or until `heal`.
        permanent: Poison of which it says itself that trying again is useless.
        flaky: Events it fails on a number of times.
        slow: Events it overruns its timeout on, the first time.
        merge: Whether several streams are merged by event time, or read side by side.
        keeps_state: Whether it notes every event in the state; batches of functions that only publish are coalesced.
        least: The lowest number it means; what is below counts as done. None means everything.
    """

    name: str
    streams: tuple[str, ...]
    output: str
    shape: Shape
    batch_size: int
    batch_bytes: int
    batch_window: float
    drawn_order: EventOrder
    parallelism: int
    commit: Commit
    bisect: bool
    retry: Retry
    on_failure: OnFailure
    breaker: Breaker | None
    poison: frozenset[int]
    permanent: frozenset[int]
    flaky: dict[int, int]
    slow: frozenset[int]
    merge: bool = True
    keeps_state: bool = True
    least: int | None = None
    concurrency: Concurrency | None = None
    throttle: Throttle | None = None
    sample: Sample | None = None
    debounce: Debounce | None = None
    singleton: Singleton | None = None
    priority: Priority | None = None
    batch_per_key: bool = False

    @property
    def is_merged(self) -> bool:
        """Return whether its streams are read as one."""
        return self.merge and len(self.streams) > 1

    @property
    def order(self) -> EventOrder:
        """The order in which it handles events; a merge has one order."""
        return "partition" if self.is_merged else self.drawn_order


class PlannedEvent(msgspec.Struct, frozen=True):
    """An event to be published; `garbage` is not even JSON, `time` None is when it is appended."""

    number: int
    key: str | None
    time: int | None
    garbage: bool
    priority: int = 0
    delay: float = 0.0
    headers: dict[str, str] = {}
    type: str | None = None
    source: str | None = None


class Action(msgspec.Struct, frozen=True):
    """Something that is done at a moment (virtual seconds).

    `amount` says how far the clock is set, at which pass the host dies, or within how many seconds a
    host that is stopped has to be gone.
    """

    at: float
    deed: Deed
    target: str = ""
    amount: float = 0
    events: tuple[PlannedEvent, ...] = ()


class Plan(msgspec.Struct, frozen=True):
    """One run.

    Attributes:
        calm: Nothing goes wrong but what the handlers do themselves.
        mishaps: How likely an instance crashes, overruns, or is taken away, per run.
        stale_reads: How likely the log is away when it is read.
        dedupe: Seconds in which a repeated event is dropped, by stream; a year where none is said.
        remote_log: Whether the log keeps its own disk, so that an outbox publishes to it.
        queues: Streams that are queues.
        kept: Seconds that a stream keeps its events, by stream; for ever where nothing is said.
        compacted: Streams that keep the last event of every key.
        takes: Seconds that every run takes.
        shows_events: Whether every output includes its event as the handler saw it.
        scenes: What is played in addition to the functions.
    """

    seed: int
    calm: bool
    streams: dict[str, int]
    functions: tuple[PlannedFunction, ...]
    actions: tuple[Action, ...]
    odds: dict[Fault, float]
    mishaps: float
    stale_reads: float
    shuffle: bool
    in_order: bool
    remote_log: bool = False
    dedupe: dict[str, float] = {}
    queues: frozenset[str] = frozenset()
    kept: dict[str, float] = {}
    compacted: frozenset[str] = frozenset()
    takes: float = 0.0
    shows_events: bool = False
    scenes: tuple[PlannedScene, ...] = ()
