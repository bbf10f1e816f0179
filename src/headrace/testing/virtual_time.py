"""An event loop whose clock jumps: a retry due in three days is run at once, in order.

In: coroutines of the real engine. Out: their results, with the time they believe has passed. When
nothing is ready the loop jumps to the next timer; when there is no timer either, it is idle, and a
caller that still waits gets an error that names every waiting task. It opens no socket and starts no thread.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from random import Random  # noqa: TID251 - the scheduler's own chance, seeded by the world
from typing import Any, TypeVar, TypeVarTuple, Unpack
from weakref import WeakSet

from headrace.environment.clock import SystemClock
from headrace.model.errors import HeadraceError

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

EPOCH = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z in microseconds: when virtual time begins
LEAST_S = 0.000_001
MAX_STEPS = 100_000


class Deadlock(HeadraceError):
    """Everything waits and nothing is scheduled that could wake it."""

    code = "deadlock"


class Livelock(HeadraceError):
    """Work goes on and on without virtual time passing far enough to end it."""

    code = "livelock"


class _Timetable:
    """Stands where a loop has its selector: waiting means moving the clock."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            self._loop.idle()
        elif timeout > 0:
            self._loop.jump()
        else:
            self._loop.step()
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs on virtual time. Owned by one world or one simulated run, driven from outside.

    Attributes:
        is_idle: Whether the last drive ended because nothing was left to do.
        patient: Timers that wait for a date; a loop with no others has nothing left to do.
    """

    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self, *, shuffle: Random | None = None, max_steps: int = MAX_STEPS) -> None:
        super().__init__()
        self._selector = _Timetable(self)
        # A loop takes a timer up when it is due within this; in a hundred virtual days a float can no
        # longer hold a nanosecond, and a timer that is due would never be.
        self._clock_resolution = 1e-6
        self._now = 0.0
        self._until = 0.0
        self._shuffle = shuffle
        self._steps = 0
        self._max_steps = max_steps
        self._livelocked = False
        self._ends_idle = False
        self.patient = WeakSet[asyncio.TimerHandle]()
        self.is_idle = False

    # --- what asyncio asks of a loop --------------------------------------------------------

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Like any loop's, but time moves on by a microsecond at least."""
        # Less than a float's last digit would be a wait that never ends: only we move the clock.
        least = max(delay, LEAST_S) if delay > 0 else delay
        return super().call_later(least, callback, *args, context=context)

    def _process_events(self, event_list: list[Any]) -> None:
        """There are no files to hear from."""

    def __del__(self) -> None:
        """It holds nothing of the system's, so one that was never closed leaks nothing."""

    def _write_to_self(self) -> None:
        """Do nothing: no task sleeps in a system call, so none has to be woken."""

    # --- what the timetable finds -----------------------------------------------------------

    def idle(self) -> None:
        """Nothing is ready and nothing is scheduled."""
        self.is_idle = True
        self.stop()

    def jump(self) -> None:
        """Nothing is ready: go to the next timer, or to the end of this drive."""
        when: float = self._scheduled[0]._when  # type: ignore[attr-defined]  # heap order is by it
        if self._ends_idle and self._only_dates():
            self.idle()
        elif when > self._until:
            self._now = max(self._now, self._until)
            self.stop()
        else:
            self._now = max(self._now, when)

    def _only_dates(self) -> bool:
        return all(timer in self.patient or timer.cancelled() for timer in self._scheduled)

    def step(self) -> None:
        """Something is ready: count it, and mix the order where that was asked for."""
        self._steps += 1
        if self._steps > self._max_steps:
            self._livelocked = True
            self.stop()
        if self._shuffle is not None and len(self._ready) > 1:
            self._shuffle.shuffle(self._ready)

    def shuffle(self, chance: Random) -> None:
        """From now on mix the order of what is ready."""
        self._shuffle = chance

    # --- driving ----------------------------------------------------------------------------

    def drive(self, work: Coroutine[Any, Any, T], *, limit: float = 86_400.0 * 366) -> T:
        """Run `work` to its end and hand back its result.

        Raises:
            Deadlock: It waits for something that no task will do.
            Livelock: It takes too many steps, or more than `limit` virtual seconds.
        """
        task = self.create_task(work, name="main")
        task.add_done_callback(self._driven)
        try:
            self._run(self._now + limit)
        finally:
            task.remove_done_callback(self._driven)
        if not task.done():
            waiting = self.dump()
            task.cancel()
            if self.is_idle:
                raise Deadlock(f"nothing is left to run, yet:\n{waiting}")
            raise Livelock(f"not done after {limit:.0f} virtual seconds:\n{waiting}")
        return task.result()

    def _driven(self, _: asyncio.Task[Any]) -> None:
        self.stop()

    def run_for(self, seconds: float) -> None:
        """Let this much virtual time pass."""
        end = self._now + seconds
        self._run(end)
        self._now = max(self._now, end)

    def run_until_idle(self, limit: float) -> bool:
        """Run until nothing is left to do, or `limit` seconds have passed; whether it is idle."""
        self._ends_idle = True
        try:
            self._run(self._now + limit)
        finally:
            self._ends_idle = False
        return self.is_idle

    def _run(self, until: float) -> None:
        self._until = until
        self.is_idle = False
        self._steps = 0
        while True:
            try:
                self.run_forever()
                break
            except SystemExit:
                # A task of a handler's raised it, and asyncio raises it here too; the task
                # that waits for it gets the error.
                continue
        if self._livelocked:
            self._livelocked = False
            raise Livelock(
                f"{self._max_steps} steps at virtual second {self._now:.3f} and no end:\n"
                f"{self.dump()}"
            )

    def dump(self) -> str:
        """Every task and where it waits, one a line."""
        lines = []
        for task in sorted(asyncio.all_tasks(self), key=lambda task: task.get_name()):
            frames = task.get_stack(limit=1)
            where = f"{frames[-1].f_code.co_qualname}:{frames[-1].f_lineno}" if frames else "?"
            lines.append(f"  {task.get_name()} waits in {where}")
        return "\n".join(lines) or "  (no tasks)"


class VirtualClock(SystemClock):
    """The loop's time as dates. Waits are the loop's own, so they jump with it."""

    def __init__(self, loop: VirtualLoop, *, epoch: int = EPOCH) -> None:
        self._loop = loop
        self._epoch = epoch
        self._waiting: set[asyncio.Future[None]] = set()

    async def until(self, when: int, woken: asyncio.Event | None = None) -> None:
        """Wait for a date in one piece; start again if the clock is set meanwhile."""
        while (left := when - self.now()) > 0 and not (woken is not None and woken.is_set()):
            waiter: asyncio.Future[None] = self._loop.create_future()
            timer = self._loop.call_later(left / 1_000_000, _wake, waiter)
            self._waiting.add(waiter)
            self._loop.patient.add(timer)
            asked = None if woken is None else self._loop.create_task(_heed(woken, waiter))
            try:
                await waiter
            finally:
                if asked is not None:
                    asked.cancel()
                timer.cancel()
                self._waiting.discard(waiter)

    def alarm(self, seconds: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        """Call `callback` in so many seconds; a loop that has nothing else is idle."""
        timer = self._loop.call_later(seconds, callback)
        self._loop.patient.add(timer)
        return timer

    def now(self) -> int:
        """Virtual microseconds since the epoch."""
        return self._epoch + round(self._loop.time() * 1_000_000)

    def monotonic(self) -> float:
        """Virtual seconds."""
        return self._loop.time()

    def set_back(self, seconds: float) -> None:
        """Let the wall clock be wrong by this much more (below zero: let it run ahead)."""
        self._epoch -= round(seconds * 1_000_000)
        for waiter in self._waiting:
            _wake(waiter)


async def _heed(woken: asyncio.Event, waiter: asyncio.Future[None]) -> None:
    await woken.wait()
    _wake(waiter)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
