"""Faults of a host in a test: its crash, and errors of its storage before.

A host is one life of a node: its tasks, and its own access to the storage, which outlives it. When
it dies, every task of it ends at once and none of its later changes reaches the storage; what the
storage has committed stays. Which fault strikes is drawn from a seed by `Weather`, or armed by name.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Never

from headrace.environment.clock import Clock
from headrace.environment.randomness import Entropy
from headrace.model.effects import Change, Space
from headrace.model.errors import Conflict, DiskFull, HeadraceError, Unavailable
from headrace.model.invocation import Invocation
from headrace.model.outcome import Outcome
from headrace.model.record import Chunk
from headrace.storage.kv.base import Applied, Storage
from headrace.storage.kv.change_checks import only_appends
from headrace.storage.log.base import Broker, Reader, Subscription


class HostDied(BaseException):
    """The process would have ended here. Not an `Exception`: nothing may catch it and go on.

    Attributes:
        landed: Whether the change it was busy with had reached the disk.
    """

    def __init__(self, message: str, *, landed: bool = False) -> None:
        super().__init__(message)
        self.landed = landed


class SimulatedHost:
    """One life of a node.

    Attributes:
        number: From 1, in the order of their starts.
        alive: False from the moment it dies.
        tasks: What it is running; tasks started by its tasks belong to it too.
    """

    def __init__(self, number: int, on_death: Callable[[SimulatedHost, str], None]) -> None:
        self.number = number
        self.alive = True
        # In the order of their starts, so that they die in the same order in every run of a seed.
        self.tasks: dict[asyncio.Task[object], None] = {}
        self._on_death = on_death
        self._thawed = asyncio.Event()
        self._thawed.set()

    def adopt(self, task: asyncio.Task[object]) -> None:
        """The task lives and dies with this host."""
        self.tasks[task] = None
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[object]) -> None:
        self.tasks.pop(task, None)

    def freeze(self) -> None:
        """Stop as SIGSTOP does: what it is about to do waits, and it does not notice."""
        self._thawed.clear()

    def thaw(self) -> None:
        """Go on as if no time had passed."""
        self._thawed.set()

    async def moving(self) -> None:
        """Pass, once it is not frozen.

        Raises:
            HostDied: It has died.
        """
        if not self._thawed.is_set():
            await self._thawed.wait()
        self.must_live()

    def must_live(self) -> None:
        """Pass, if it is alive.

        Raises:
            HostDied: It is not.
        """
        if not self.alive:
            raise HostDied(f"host {self.number} is dead")

    def end(self, why: str) -> None:
        """Die, seen from outside."""
        if self.alive:
            self.alive = False
            self._on_death(self, why)

    def die(self, why: str, *, landed: bool = False) -> Never:
        """Die here and now, from within.

        Raises:
            HostDied: Always.
        """
        self.end(why)
        raise HostDied(f"host {self.number} died: {why}", landed=landed)


inhabited: ContextVar[SimulatedHost | None] = ContextVar("inhabited", default=None)
"""The host that the running task belongs to."""


class Fault(enum.StrEnum):
    """Faults of one change before it is on the disk."""

    NONE = "none"
    SLOW = "slow"
    LATE = "late"
    REFUSED = "refused"
    FULL = "full"
    CONFLICT = "conflict"
    UNKNOWN = "unknown"
    DIE_BEFORE = "die before"
    DIE_AFTER = "die after"


class Weather:
    """Draws a fault for each change, from a seed. Calm until `odds` says otherwise.

    Attributes:
        odds: The probability of each fault; what is left is none.
        longest: Seconds the slowest change takes.
        in_order: Whether changes land in the order they were asked for, as with one writer.
        stale_reads: How likely the log is away when it is read.
        remote: What happens to hosts that publish to the log, which then keeps its own disk; None
            where the log lives in the store.
        struck: How often each fault was drawn.
    """

    def __init__(
        self,
        entropy: Entropy,
        odds: Mapping[Fault, float] | None = None,
        *,
        longest: float = 0.5,
        in_order: bool = True,
        stale_reads: float = 0.0,
        remote: Weather | None = None,
    ) -> None:
        self._entropy = entropy
        self.odds = dict(odds or {})
        self.longest = longest
        self.in_order = in_order
        self.stale_reads = stale_reads
        self.remote = remote
        self.struck: dict[Fault, int] = {}

    def draw(self) -> Fault:
        """Draw the fault of the next change."""
        if not self.odds:
            return Fault.NONE
        point = self._entropy.uniform(0.0, 1.0)
        for fault, odds in self.odds.items():
            point -= odds
            if point < 0:
                self.struck[fault] = self.struck.get(fault, 0) + 1
                return fault
        return Fault.NONE

    def delay(self) -> float:
        """Draw the duration of a slow change, in seconds."""
        return self._entropy.uniform(0.0, self.longest)


class LogWeather:
    """Faults of a remote log that hosts publish to; the hook of `RemoteMemoryLog`."""

    def __init__(self, weather: Weather, clock: Clock) -> None:
        self._weather = weather
        self._clock = clock

    async def __call__(self, moment: str) -> None:
        """Let the fault happen that is drawn for this moment: `before` or `after` it has taken something."""
        host = inhabited.get()
        if host is not None:
            await host.moving()
        match moment, self._weather.draw():
            case ("before", Fault.SLOW) | ("after", Fault.LATE):
                await self._clock.sleep(self._weather.delay())
                if host is not None:
                    await host.moving()
            case "before", Fault.REFUSED:
                raise Unavailable("the log was away for a moment (a drawn fault)")
            case "after", Fault.UNKNOWN:
                raise Unavailable("the log has taken it, its answer was lost (a drawn fault)")
            case ("before", Fault.DIE_BEFORE) | ("after", Fault.DIE_AFTER) if host is not None:
                host.die(f"{moment} the log took something")
            case _:
                pass


class Spring:
    """A log that is away now and then when it is read. Otherwise the log itself.

    Attributes:
        odds: The probability that a read finds it away.
    """

    def __init__(self, broker: Broker, entropy: Entropy, odds: float) -> None:
        self._broker = broker
        self._entropy = entropy
        self.odds = odds

    def __getattr__(self, name: str) -> object:
        return getattr(self._broker, name)

    def subscribe(self, group: str, streams: tuple[str, ...]) -> Subscription:
        """Join `group`; its readers are troubled."""
        subscription = self._broker.subscribe(group, streams)
        reader_of = subscription.reader

        def reader(stream: str, partition: int, offset: int) -> Reader:
            found = reader_of(stream, partition, offset)
            read_on = found.read

            async def read(*, events: int, size: int) -> list[Chunk]:
                if self._entropy.uniform(0.0, 1.0) < self.odds:
                    raise Unavailable("the log was away for a moment (a drawn fault)")
                return await read_on(events=events, size=size)

            found.read = read  # type: ignore[method-assign]  # the fault that is drawn
            return found

        subscription.reader = reader  # type: ignore[method-assign]  # hands out troubled readers
        return subscription


class HostWatcher:
    """Watches the runs and changes of all hosts; this one changes nothing."""

    async def before(self, host: SimulatedHost, invocation: Invocation) -> Outcome | None:
        """Take the place of a run by an outcome; None lets it run."""

    async def after(
        self, host: SimulatedHost, invocation: Invocation, outcome: Outcome
    ) -> Outcome | None:
        """Take the place of an outcome, whose effects are lost then; None keeps it."""

    def landed(self, host: SimulatedHost, change: Change) -> None:
        """Note a change that reached the store."""

    def refused(self, host: SimulatedHost, change: Change) -> None:
        """Note a change that did not land, or was answered as if it had not."""


class HostStorage:
    """One host's way to the store: closed to the dead, and troubled by the weather.

    Args:
        storage: What outlives the host.
        host: The host that uses it.
        weather: Which faults strike.
        clock: For slow changes.
        watcher: Sees every change that lands, and every one that is refused.
    """

    def __init__(
        self,
        storage: Storage,
        host: SimulatedHost,
        *,
        weather: Weather,
        clock: Clock,
        watcher: HostWatcher,
    ) -> None:
        self._storage = storage
        self._host = host
        self._weather = weather
        self._clock = clock
        self._turn = asyncio.Lock() if weather.in_order else None
        self._watcher = watcher

    async def apply(self, change: Change) -> Applied:
        """Hand the change on, or let the drawn fault happen to it; a producer's meets none."""
        await self._host.moving()
        if only_appends(change):
            return await self._storage.apply(change)
        fault = self._weather.draw()
        try:
            if self._turn is None:
                return await self._pass(change, fault)
            async with self._turn:
                return await self._pass(change, fault)
        except HeadraceError:
            self._watcher.refused(self._host, change)
            raise

    async def _pass(self, change: Change, fault: Fault) -> Applied:
        await self._host.moving()
        match fault:
            case Fault.SLOW:
                await self._clock.sleep(self._weather.delay())
                await self._host.moving()
            case Fault.REFUSED:
                raise Unavailable("the store was away for a moment (a drawn fault)")
            case Fault.FULL:
                raise DiskFull("the disk was full for a moment (a drawn fault)")
            case Fault.CONFLICT if change.checks:
                raise Conflict("another host was first (an injected fault)")
            case Fault.DIE_BEFORE:
                self._host.die("before a commit landed")
            case _:
                pass
        try:
            applied = await self._storage.apply(change)
        except HostDied as died:
            if died.landed:
                self._watcher.landed(self._host, change)
            raise
        self._watcher.landed(self._host, change)
        match fault:
            case Fault.LATE:
                await self._clock.sleep(self._weather.delay())
            case Fault.UNKNOWN:
                raise Unavailable("the answer was lost, the change was not (a drawn fault)")
            case Fault.DIE_AFTER:
                self._host.die("after a commit had landed")
            case _:
                pass
        return applied

    async def get(self, space: Space, key: bytes) -> bytes | None:
        """The value at `key`."""
        self._host.must_live()
        return await self._storage.get(space, key)

    async def get_many(
        self, space: Space, keys: Sequence[bytes], *, most: int | None = None
    ) -> list[bytes | None]:
        """The values at `keys`."""
        self._host.must_live()
        return await self._storage.get_many(space, keys, most=most)

    async def scan(
        self,
        space: Space,
        low: bytes,
        high: bytes | None = None,
        *,
        limit: int = 1_000,
        most: int | None = None,
    ) -> list[tuple[bytes, bytes]]:
        """Up to `limit` pairs, ascending."""
        self._host.must_live()
        return await self._storage.scan(space, low, high, limit=limit, most=most)

    async def settled(self) -> None:
        """Changes land as they are handed in."""
        self._host.must_live()

    async def close(self) -> None:
        """The store outlives its hosts; nothing to close."""
