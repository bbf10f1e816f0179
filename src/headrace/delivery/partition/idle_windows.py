"""Closes the windows that a quiet stream leaves open.

In: the times of events, and the partition's rows in the store. Out: a request to the window function, committed like an
output. Only time during which the partition worker runs is counted, so neither a pause of the node nor a change of the
wall clock closes a window early.
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
    """Windows of one function, over one partition of a stream.

    Attributes:
        idle: Seconds without an event after which they close.
        ends: The stream that takes the requests, and its number of partitions.
    """

    app: str
    function: str
    stream: str
    partition: int
    idle: float
    ends: tuple[str, int]


class IdleWindows:
    """Owned by one partition worker, which calls it whenever it has nothing else to do.

    Args:
        of: The windows.
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
        """Restart the time at an event."""
        self._since = now
        self._is_settled = False

    def look_again(self) -> None:
        """Check again: the last request may not have been committed."""
        self._is_settled = False

    def is_due(self, now: float) -> bool:
        """Return whether open windows must be looked for now; if not, `wake` is called later."""
        if self._is_settled:
            return False
        left = self._since + self._of.idle - now
        if left <= 0:
            return True
        # One timer, which events do not move: if it fires too early, the next check starts
        # another.
        if self._alarm is None:
            self._alarm = call_on_date(self._clock, left, self._ring)
        return False

    async def request(self) -> Append | None:
        """Return the request that closes the open windows, or None if none is open.

        Raises:
            Unavailable: The store is away.
        """
        # Set before the read: an event that comes during the await resets it.
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
        """Cancel the timer."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _ring(self) -> None:
        self._alarm = None
        self._wake()


def idle_windows_of(
    claimed: ClaimedPartition, engine: Engine, wakeup: Wakeup
) -> IdleWindows | None:
    """Return the idle check of a claimed partition; None if only events close its windows, or it has none."""
    spec = claimed.spec
    if spec.ends is None:
        return None
    trigger, name = spec.ends
    # The worker of the requests' own stream has no windows.
    if trigger.idle is None or name in claimed.streams:
        return None
    ends = name, trigger.partitions
    (stream,) = claimed.streams
    of = WindowsOf(spec.app, spec.name, stream, claimed.partition, trigger.idle, ends)
    return IdleWindows(of, storage=engine.storage, clock=engine.clock, wake=wakeup.wake)
