"""Closes the windows that a quiet stream leaves open: when, and with what request.

In: when events came, and what the store holds of the partition. Out: a request to the window function, to
be committed like an output. The time is counted while the partition worker runs, so neither a pause of
the node nor a wall clock that is set makes a window close early.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from headrace.delivery.engine import Engine
from headrace.delivery.partition.claimed_partition import ClaimedPartition
from headrace.delivery.partition.wakeup import Wakeup
from headrace.environment.clock import Clock
from headrace.environment.wait_until import call_on_date
from headrace.model.record import Append
from headrace.model.stores import WINDOWS, StoreAddress
from headrace.model.windows import CloseRequest, decode_progress, progress_key, windows_place
from headrace.storage.kv.base import Storage
from headrace.storage.state.rows import decode_row, rows_of


class WindowsOf(msgspec.Struct, frozen=True):
    """Whose windows: those of one function, over one partition of a stream.

    Attributes:
        idle: Seconds without an event after which they close.
        ends: The stream on which the function is asked, and how many partitions it has.
    """

    app: str
    function: str
    stream: str
    partition: int
    idle: float
    ends: tuple[str, int]


class IdleWindows:
    """Owned by one partition worker, which asks it whenever it has nothing else to do.

    Args:
        of: Whose windows.
        wake: Called when they may be due.
    """

    def __init__(
        self, of: WindowsOf, *, storage: Storage, clock: Clock, wake: Callable[[], None]
    ) -> None:
        self._of = of
        self._storage = storage
        self._clock = clock
        self._wake = wake
        self._since = clock.monotonic()
        self._is_settled = False
        self._alarm: asyncio.TimerHandle | None = None

    def event_came(self, now: float) -> None:
        """Count from now on."""
        self._since = now
        self._is_settled = False

    def look_again(self) -> None:
        """What was asked for may not have landed."""
        self._is_settled = False

    def is_due(self, now: float) -> bool:
        """Whether it is time to look for open windows; if not, `wake` is called when it may be."""
        if self._is_settled:
            return False
        left = self._since + self._of.idle - now
        if left <= 0:
            return True
        if self._alarm is None:
            self._alarm = call_on_date(self._clock, left, self._ring)
        return False

    async def request(self) -> Append | None:
        """The request that closes the windows that are open now, or None where none is.

        Raises:
            Unavailable: The store is away.
        """
        self._is_settled = True
        of = self._of
        rows = rows_of(StoreAddress(of.app, of.function, WINDOWS))
        place = windows_place(of.stream, of.partition)
        row = await self._storage.get(rows.space, rows.key(progress_key(place)))
        if row is None:
            return None
        progress = decode_progress(decode_row(row)[2])
        if not progress.buckets:
            return None
        asks = CloseRequest(of.stream, of.partition, progress.last)
        return asks.append(*of.ends, self._clock.now())

    def close(self) -> None:
        """Let go of the alarm."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _ring(self) -> None:
        self._alarm = None
        self._wake()


def idle_windows_of(
    claimed: ClaimedPartition, engine: Engine, wakeup: Wakeup
) -> IdleWindows | None:
    """What closes the windows of a claimed partition; None where only events do, or it has none."""
    spec = claimed.spec
    if spec.ends is None:
        return None
    trigger, name = spec.ends
    if trigger.idle is None or name in claimed.streams:
        return None
    ends = name, trigger.partitions
    (stream,) = claimed.streams
    of = WindowsOf(spec.app, spec.name, stream, claimed.partition, trigger.idle, ends)
    return IdleWindows(of, storage=engine.storage, clock=engine.clock, wake=wakeup.wake)
