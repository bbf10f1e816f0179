"""Pumps come and go with assignments: one per function, trigger and partition this node owns.

In come the deployed apps and what their subscriptions say; out go running pumps. An operator's wish
about a partition is carried to the pump that owns it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

from headrace.delivery.breaker import BreakerState, CircuitBreaker
from headrace.delivery.delays import Delays
from headrace.delivery.feeding import Feeding, Key
from headrace.delivery.flow import Flow
from headrace.delivery.moving import move, move_to_end, must_merge_alike
from headrace.delivery.naming import unknown_function
from headrace.delivery.outside import Outside
from headrace.delivery.positions import (
    start_offset,
)
from headrace.delivery.pump import Pump
from headrace.delivery.pumping import Pumping
from headrace.delivery.roster import Roster
from headrace.delivery.runs import Runs
from headrace.delivery.shifts import Shifts
from headrace.delivery.vetting import Vetting
from headrace.keepers.brokers.base import Assigned, Broker, Revoked, Subscription
from headrace.keepers.storage.base import Storage
from headrace.model.errors import Corrupt, Fenced, Misuse
from headrace.model.function import AppSpec, FunctionSpec, StreamSpec
from headrace.model.lag import Lag
from headrace.model.trigger import StreamTrigger, listeners, own_settings
from headrace.model.watches import Ends
from headrace.runtime.base import Invoker, Lead
from headrace.topology.consumers import consumer_of
from headrace.triggers.agenda import Agenda
from headrace.triggers.checks import check_patterns
from headrace.triggers.opening import Surroundings
from headrace.world.backoff import Backoff
from headrace.world.clock import Clock
from headrace.world.entropy import Entropy
from headrace.world.failpoints import hit
from headrace.world.supervision import Supervised, Trouble, Work
from headrace.world.tasks import Tasks


class Dispatcher:
    """Owns every pump of the node. Used by the node's main task and by the door."""

    def __init__(
        self,
        *,
        broker: Broker,
        storage: Storage,
        invoker: Invoker,
        clock: Clock,
        entropy: Entropy,
        runs: Runs,
        on_failure: Callable[[str, BaseException], None],
        folder: Path | None = None,
        outside: bool = True,
        shifts: Shifts | None = None,
        lead: Lead | None = None,
    ) -> None:
        self.apps: dict[str, AppSpec] = {}
        self.functions: dict[str, FunctionSpec] = {}
        self.breakers: dict[str, CircuitBreaker] = {}
        self.halted: dict[Key, str] = {}
        self._flows: dict[str, Flow] = {}
        self._shifts = Shifts() if shifts is None else shifts
        self._rosters: dict[str, Roster] = {}
        self.queues = Outside(invoker, storage=storage, clock=clock, entropy=entropy)
        self._broker, self._storage, self._invoker = broker, storage, self.queues
        self._clock, self._entropy, self._runs = clock, entropy, runs
        self._on_failure = on_failure
        self._tasks = Tasks(on_failure)
        # All by function first: there may be thousands, and each finds its own only.
        self._pumps: defaultdict[str, dict[Key, tuple[Pump, Supervised]]] = defaultdict(dict)
        self._subscriptions: defaultdict[
            str, dict[tuple[str, ...], tuple[Subscription, Supervised]]
        ] = defaultdict(dict)
        # By stream then: what is read together with it.
        self._reads: dict[str, dict[str, list[tuple[str, ...]]]] = {}
        self._readers: defaultdict[str, set[str]] = defaultdict(set)
        self._paused: set[str] = set()
        # Held while an operator's wish is done to rows of a partition that nobody owns here.
        self._unowned: defaultdict[tuple[str, int], asyncio.Lock] = defaultdict(asyncio.Lock)
        self.delays = Delays(
            storage=storage, broker=broker, clock=clock, entropy=entropy, on_failure=on_failure
        )
        self.vetting = Vetting(broker, self.delays, runs)
        around = Surroundings(
            clock, entropy, folder, broker, invoker.invoke,
            outside=outside, agenda=Agenda(clock, self._tasks),
        )  # fmt: skip
        self.sources = Feeding(
            around, storage=storage, broker=broker, clock=clock, entropy=entropy,
            tasks=self._tasks, halted=self.halted,
        )  # fmt: skip
        self._pumping = Pumping(
            storage=storage, broker=broker, clock=clock, entropy=entropy, tasks=self._tasks,
            runs=runs, queues=self.queues, vetting=self.vetting, lead=lead,
        )  # fmt: skip
        self._delaying: Supervised | None = None

    def troubles(self) -> dict[str, Trouble]:
        """What fails of all that is kept going here, by name: sources, delays, who follows streams."""
        return self._tasks.troubles()

    # --- deployment -------------------------------------------------------------------------

    async def deploy(self, app: AppSpec) -> None:
        """Declare the app's streams and deliver to its functions; again with a changed app is fine.

        Functions that are gone or changed are stopped first, their last unit landed.

        Raises:
            Misuse: A stream or trigger cannot be what the app asks for.
        """
        check_patterns(app)
        for stream in app.streams:
            await self._broker.declare(stream)
        for function in app.functions:
            for trigger, reads in listeners(function.name, function.triggers):
                if reads is not trigger and not isinstance(trigger, Lag):
                    self.sources.check(function, trigger)
                    own = StreamSpec(
                        name=reads.streams[0], owner=app.name, private=True, **own_settings(trigger)
                    )
                    await self._broker.declare(own)
        consumers = [found for stream in app.streams if (found := consumer_of(stream, app.name))]
        for consumer in consumers:
            await self.queues.open(consumer)
        wanted = {function.name: function for function in (*app.functions, *consumers)}
        for name, function in list(self.functions.items()):
            if function.app == app.name and wanted.get(name) != function:
                await self._withdraw(name)
        if self.apps.get(app.name) != app:
            # Else the object that is known stays: whoever compares need not look into it.
            self.apps[app.name] = app
        if self._delaying is None:
            self._delaying = self._supervise(self.delays.run, "delays")
        for function in wanted.values():
            if function.name not in self.functions:
                flow = Flow(function)
                await flow.load(self._storage, self._clock.now())
                self._flows[function.name] = flow
                self._begin(function)

    def _begin(self, function: FunctionSpec) -> None:
        self.functions[function.name] = function
        self.breakers[function.name] = CircuitBreaker(function.breaker)
        self._reads[function.name] = {}
        for trigger, reads in listeners(function.name, function.triggers):
            subscription = self._broker.subscribe(function.name, reads.streams)
            for stream in reads.streams:
                self._reads[function.name].setdefault(stream, []).append(reads.streams)
                self._readers[stream].add(function.name)
            if isinstance(trigger, Lag):
                follow = self._roster(function, trigger, subscription).follow
            else:
                # What an author lets be left out is events, never what became of them.
                spec = function.for_ends() if isinstance(trigger, Ends) else function
                follow = partial(self._follow, spec, reads, subscription, deque())
            following = self._supervise(follow, f"follow {function.name}")
            self._subscriptions[function.name][reads.streams] = subscription, following
            if reads is not trigger and not isinstance(trigger, Lag):
                self.sources.start(function, trigger, reads.streams[0])

    def _supervise(
        self, work: Work, name: str, *, halts: tuple[type[Exception], ...] = ()
    ) -> Supervised:
        backoff = Backoff(self._clock, self._entropy)
        return self._tasks.supervise(work, name=name, backoff=backoff, halts=halts)

    def _roster(self, function: FunctionSpec, trigger: Lag, subscription: Subscription) -> Roster:
        roster = self._rosters[function.name] = Roster(
            function, trigger, subscription, storage=self._storage, broker=self._broker,
            invoker=self._invoker, clock=self._clock, entropy=self._entropy, tasks=self._tasks,
            runs=self._runs, shifts=self._shifts,
            vetting=self.vetting,
        )  # fmt: skip
        roster.paused = function.name in self._paused
        return roster

    async def _withdraw(self, name: str) -> None:
        """Stop delivering to a function; what is in flight ends first."""
        subscriptions = self._subscriptions[name]
        for streams in list(subscriptions):
            await self.sources.stop(streams[0])
            subscription, following = subscriptions.pop(streams)
            await following.stop()
            if (roster := self._rosters.pop(name, None)) is not None:
                await roster.close()
            # Pumps first: closing the subscription takes their readers away.
            await self._stop([key for key in self._pumps[name] if key[1] == streams])
            await subscription.close()
        self._subscriptions.pop(name, None)
        self._pumps.pop(name, None)
        for stream in self._reads.pop(name, {}):
            self._readers[stream].discard(name)
        self.functions.pop(name, None)

    async def close(self, grace: float) -> None:
        """Stop taking up work, let what is in flight end and land, then let go of everything.

        What has not landed within `grace` seconds is abandoned; the next owner delivers it again.
        Harmless where it is closed.
        """
        if self._tasks.closed:
            return
        for name in list(self.functions):
            for pump, _ in self._of(name):
                pump.stop()
        leaving = [
            self._tasks.start(self._withdraw(name), name=f"withdraw {name}")
            for name in self.functions
        ]
        with contextlib.suppress(TimeoutError):
            await self._clock.timeout(asyncio.gather(*leaving, return_exceptions=True), grace)
        await self._tasks.close()

    # --- assignments ------------------------------------------------------------------------

    async def _follow(
        self,
        function: FunctionSpec,
        trigger: StreamTrigger,
        subscription: Subscription,
        told: deque[Assigned | Revoked],
    ) -> None:
        """Start and stop pumps as the subscription says; `told` holds what is not done yet."""
        while True:
            if not told:
                told.append(await subscription.read())
            match told[0]:
                case Assigned(partitions=partitions):
                    for partition in partitions:
                        await self._assign(function, trigger, subscription, partition)
                    hit("recovery:claimed")
                case Revoked(partitions=partitions):
                    await self._stop([(function.name, trigger.streams, p) for p in partitions])
                    await subscription.released(partitions)
            told.popleft()

    async def _assign(
        self,
        function: FunctionSpec,
        trigger: StreamTrigger,
        subscription: Subscription,
        partition: int,
    ) -> None:
        key = (function.name, trigger.streams, partition)
        if key in self._pumps[key[0]]:
            # Begun before another partition of the same assignment could not be claimed.
            return
        name = f"pump {function.name} {','.join(trigger.streams)}/{partition}"
        try:
            pump = await self._pump(function, trigger, subscription, partition)
        except Corrupt as error:
            # The other partitions are not damaged.
            self.halted[key] = f"{type(error).__name__}: {error}"
            self._on_failure(name, error)
            return
        watch = partial(self._watch, key, deque([pump]), function, trigger, subscription)
        self._pumps[key[0]][key] = pump, self._supervise(watch, name, halts=(Corrupt,))

    async def _pump(
        self,
        function: FunctionSpec,
        trigger: StreamTrigger,
        subscription: Subscription,
        partition: int,
    ) -> Pump:
        claims = await self._pumping.claims(function.name, trigger, partition)
        pump = self._pumping.pump(
            function, trigger, subscription, partition, claims,
            breaker=self.breakers[function.name], flow=self._flows[function.name],
        )  # fmt: skip
        pump.paused = function.name in self._paused
        return pump

    async def _watch(
        self,
        key: Key,
        made: deque[Pump],
        function: FunctionSpec,
        trigger: StreamTrigger,
        subscription: Subscription,
    ) -> None:
        """Run the pump that is `made`; after it failed another one, from what the store holds.

        Raises:
            Corrupt: Stored bytes are damaged: the partition halts until somebody has looked at them.
            Exception: It ended by a fault of ours, or of the store's, and is to be begun anew.
        """
        try:
            if not made:
                made.append(await self._pump(function, trigger, subscription, key[2]))
            pumps = self._pumps[key[0]]
            if key not in pumps:
                return
            pump = made.popleft()
            pumps[key] = pump, pumps[key][1]
            self.halted.pop(key, None)
            async with self._unowned[function.name, key[2]]:
                pass
            await pump.run()
        except Exception as error:
            again = "" if isinstance(error, Corrupt) else "; begins anew soon"
            self.halted[key] = f"{type(error).__name__}: {error}{again}"
            raise
        if pump.fenced:
            # Still assigned to us: whoever claimed it late has to let go, so claim it anew.
            self.halted[key] = "another owner has taken the partition over; claimed anew soon"
            raise Fenced(self.halted[key])

    async def _stop(self, keys: Sequence[Key]) -> None:
        found = [self._pumps[key[0]].pop(key) for key in keys if key in self._pumps[key[0]]]
        for pump, _ in found:
            pump.stop()
        await asyncio.gather(*(watch.task for _, watch in found), return_exceptions=True)

    # --- operators' wishes ------------------------------------------------------------------

    def _of(self, function: str) -> list[tuple[Pump, Supervised]]:
        return list(self._pumps.get(function, {}).values())

    def pump(self, function: str, stream: str, partition: int) -> Pump | None:
        """The pump that owns the partition here."""
        pumps = self._pumps.get(function, {})
        for streams in self._reads.get(function, {}).get(stream, ()):
            if (found := pumps.get((function, streams, partition))) is not None:
                return found[0]
        return None

    def partitions(self, function: str) -> list[tuple[str, int]]:
        """Every (stream, partition) the function reads.

        Raises:
            Unknown: It is not deployed.
        """
        return [
            (stream, partition)
            for _, reads in listeners(function, self.known(function).triggers)
            for stream in reads.streams
            for partition in range(self._broker.stream(stream).partitions)
        ]

    def readers(self, stream: str) -> list[str]:
        """The functions that read a stream: by its name, or as the place where a trigger keeps its events."""
        return sorted(self._readers.get(stream, ()))

    def state_of(self, function: str, stream: str, partition: int) -> str:
        """What delivery to this partition is doing, in words."""
        pump = self.pump(function, stream, partition)
        for streams in (*self._reads.get(function, {}).get(stream, ()), (stream, "source")):
            if (why := self.halted.get((function, streams, partition))) is not None:
                return f"halted: {why}"
        if (roster := self._rosters.get(function)) is not None:
            return roster.state_of(partition)
        if pump is None:
            return "stopped"
        if pump.paused:
            return "paused"
        if self.breakers[function].state is BreakerState.OPEN:
            return "circuit breaker open"
        return "retrying" if pump.is_retrying else "running"

    def known(self, function: str) -> FunctionSpec:
        """The function's description.

        Raises:
            Unknown: It is not deployed.
        """
        if function not in self.functions:
            raise unknown_function(function, self.functions)
        return self.functions[function]

    async def with_owner(
        self, function: str, stream: str, partition: int, work: Callable[[], Awaitable[None]]
    ) -> None:
        """Do `work` on a partition's rows while its one writer stands still; it then looks anew."""
        pump = self.pump(function, stream, partition)
        if pump is None:
            # A pump that comes meanwhile waits, for it looks at the rows once, when it begins.
            async with self._unowned[function, partition]:
                await work()
            if (roster := self._rosters.get(function)) is not None:
                # A run that holds the partition is fenced off by what was written.
                roster.wake()
        else:
            await pump.errand(work)

    def pause(self, function: str) -> None:
        """Take up nothing new for the function."""
        self.known(function)
        self._paused.add(function)
        for pump, _ in self._of(function):
            pump.pause(True)
        if (roster := self._rosters.get(function)) is not None:
            roster.pause(True)

    def resume(self, function: str) -> None:
        """Go on after `pause`."""
        self.known(function)
        self._paused.discard(function)
        for pump, _ in self._of(function):
            pump.pause(False)
        if (roster := self._rosters.get(function)) is not None:
            roster.pause(False)

    async def reset(self, function: str, start: str, *, order_of: str | None = None) -> None:
        """Send the function back (or forward) to `start` in all its streams; see `start_offset`.

        Args:
            function: Its name.
            start: Where it is to go on.
            order_of: Merge in the order that this function has merged in, as far as it has come.

        Raises:
            Unknown: There is no such function.
            Misuse: `start` is not a place, or the two do not merge the same streams.
        """
        spec = self.known(function)
        if order_of is not None:
            must_merge_alike(spec, self.known(order_of))
        for trigger, reads in listeners(function, spec.triggers):
            if isinstance(trigger, Ends):
                # Windows that have closed are told once; those that are folded anew close anew.
                continue
            for partition in range(self._broker.stream(reads.streams[0]).partitions):
                offsets = {
                    stream: await start_offset(self._broker, stream, partition, start)
                    for stream in reads.streams
                }
                work = partial(
                    move, self._storage, function, partition, offsets, order_of,
                    app=spec.app if spec.folds else "",
                )  # fmt: skip
                await self.with_owner(function, reads.streams[0], partition, work)

    async def empty(self, function: str, stream: str, partition: int) -> int:
        """Let everything that waits in one partition of a stream count as done; how many there were.

        What runs there is awaited first, or taken back from programs outside.

        Raises:
            Misuse: The function merges the stream with others.
        """
        count = 0

        async def work() -> None:
            nonlocal count
            count = await move_to_end(self._storage, self._broker, function, stream, partition)

        for _, reads in listeners(function, self.known(function).triggers):
            if stream in reads.streams and len(reads.streams) > 1:
                raise Misuse(f"`{function}` merges `{stream}` with other streams; reset it instead")
        await self.with_owner(function, stream, partition, work)
        return count
