"""The instances of one function: lease, give back, replace; and who waits for one.

A run goes to the instance its affinity remembers, else to the one used last, else a hibernating
one is revived, else a new one is forked, else it waits in a bounded line. While runs are known to
be shorter than a fork, a busy instance takes several at once. An instance that dies is dropped;
a run lost with it through no fault of its own is run again, alone. The pool decides; time comes in
through `tend`, which its fleet calls.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable

from headrace.model.errors import Overloaded, Unavailable
from headrace.model.function import FunctionSpec
from headrace.model.invocation import Invocation
from headrace.model.outcome import Outcome
from headrace.runtime.instance import Instance, Lost, State

MAX_WAITING = 4_096
MAX_AFFINITIES = 4_096
MAX_IN_HAND = 32
"""Runs one instance takes at once while they are short."""
SHORT_RUN_S = 0.001
"""Runs below it are shorter than a fork; only they share an instance."""
MAX_RERUNS = 3
SMOOTHING = 0.2


class Pool:
    """All instances of one version of one function."""

    def __init__(
        self,
        spec: FunctionSpec,
        *,
        fork: Callable[[Pool], Instance | None],
        make_room: Callable[[], bool],
        now: Callable[[], float],
    ) -> None:
        self.spec = spec
        self.instances: set[Instance] = set()
        self.draining = False
        self._fork = fork
        self._make_room = make_room
        self._now = now
        self._idle: OrderedDict[Instance, None] = OrderedDict()
        self._sleeping: OrderedDict[Instance, None] = OrderedDict()
        self._sharing: set[Instance] = set()
        self._homes: OrderedDict[str, Instance] = OrderedDict()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._run_s = 1.0
        self._slowest_s = 1.0

    @property
    def waiting(self) -> int:
        """How many runs stand in line."""
        return len(self._waiting)

    @property
    def in_hand(self) -> int:
        """How many runs its instances have not answered."""
        return sum(instance.in_hand for instance in self.instances)

    async def invoke(self, invocation: Invocation) -> Outcome | Lost:
        """Run it. `Lost` comes back only when the pool drains before the run could begin.

        Raises:
            Overloaded: The line is full.
            Unavailable: No instance could be forked, several times over.
        """
        alone = False
        reason = ""
        for _ in range(MAX_RERUNS):
            instance = None if self._waiting else self._choose(invocation.affinity, alone=alone)
            called = False
            while instance is None:
                await self._wait_turn(first=called)
                if self.draining:
                    return Lost("the function was replaced by a newer version")
                instance = self._choose(invocation.affinity, alone=alone)
                called = True
            outcome = await instance.run(invocation)
            if not isinstance(outcome, Lost):
                return outcome
            reason = outcome.reason
            alone = True
        raise Unavailable(f"no instance of `{self.spec.name}` stays up: {reason}")

    # -- choosing --------------------------------------------------------------------------------

    def _choose(self, affinity: str, *, alone: bool) -> Instance | None:
        if affinity and (home := self._homes.get(affinity)) is not None and home in self._idle:
            instance: Instance | None = home
        elif self._idle:
            instance = next(reversed(self._idle))
        else:
            instance = self._shared(alone=alone) or self._another()
        if instance is None:
            return None
        self._idle.pop(instance, None)
        self._sleeping.pop(instance, None)
        if alone or not self._short:
            self._sharing.discard(instance)
        else:
            self._sharing.add(instance)
        if affinity and self._homes.get(affinity) is not instance:
            self._homes[affinity] = instance
            if len(self._homes) > MAX_AFFINITIES:
                self._homes.popitem(last=False)
        return instance

    @property
    def _short(self) -> bool:
        return self._slowest_s < SHORT_RUN_S

    def _shared(self, *, alone: bool) -> Instance | None:
        """A busy instance that will be free sooner than a fork would take."""
        if alone or not self._sharing or not self._short:
            return None
        least = min(self._sharing, key=lambda instance: instance.in_hand)
        if least.in_hand >= MAX_IN_HAND or least.state is not State.BUSY:
            return None
        if least.in_hand * self._run_s < SHORT_RUN_S or self._full:
            return least
        return None

    @property
    def _full(self) -> bool:
        return len(self.instances) >= self.spec.scaling.max

    def _another(self) -> Instance | None:
        if self._sleeping:
            return next(reversed(self._sleeping))
        if self._full or not self._make_room():
            return None
        instance = self._fork(self)
        if instance is not None:
            self.instances.add(instance)
        return instance

    async def _wait_turn(self, *, first: bool) -> None:
        if len(self._waiting) >= MAX_WAITING:
            raise Overloaded(
                f"{MAX_WAITING} invocations of `{self.spec.name}` wait for an instance already; "
                "send slower, or raise `Scaling(max=...)`"
            )
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if first:
            self._waiting.appendleft(turn)
        else:
            self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.call_next()
            raise

    def call_next(self) -> None:
        """Let the first in line choose again."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    def call_all(self) -> None:
        """Let everyone in line choose again; those in vain line up anew."""
        waiting, self._waiting = list(self._waiting), deque()
        for turn in waiting:
            if not turn.done():
                turn.set_result(None)

    # -- what instances tell ---------------------------------------------------------------------

    def freed(self, instance: Instance) -> None:
        """It has answered a run, or has come up."""
        if instance.in_hand == 0 and instance.state is State.IDLE:
            self._sharing.discard(instance)
            if self.draining or self._worn_out(instance):
                instance.stop()
                return
            self._idle[instance] = None
        if self._waiting and instance.in_hand < MAX_IN_HAND:
            self.call_next()

    def took(self, seconds: float) -> None:
        """A run took this long; the memory of a slow one fades."""
        self._run_s += SMOOTHING * (seconds - self._run_s)
        self._slowest_s = max(seconds, self._slowest_s * 0.95)

    def gone(self, instance: Instance) -> None:
        """It is dead."""
        self.instances.discard(instance)
        self._idle.pop(instance, None)
        self._sleeping.pop(instance, None)
        self._sharing.discard(instance)
        for affinity in [key for key, home in self._homes.items() if home is instance]:
            del self._homes[affinity]
        self.call_next()

    def _worn_out(self, instance: Instance) -> bool:
        scaling = self.spec.scaling
        return (
            instance.tainted
            or (
                scaling.max_invocations is not None
                and instance.invocations >= scaling.max_invocations
            )
            or (scaling.max_age is not None and self._now() - instance.born >= scaling.max_age)
        )

    # -- time passes -----------------------------------------------------------------------------

    def tend(self, now: float) -> None:
        """Kill what overran, put to sleep what was idle long, evict what slept long, keep `min`."""
        scaling = self.spec.scaling
        for instance in list(self.instances):
            instance.overrun(now)
        for instance in list(self._idle):
            if instance.state is not State.IDLE:
                self._idle.pop(instance)
            elif self._worn_out(instance):
                self.evict(instance)
            elif now - instance.idle_since >= scaling.keep_warm and self._spare():
                self._idle.pop(instance)
                instance.hibernate()
                self._sleeping[instance] = None
        for instance in list(self._sleeping):
            long = now - instance.idle_since >= scaling.keep_hibernating
            if long and len(self.instances) > scaling.min:
                self.evict(instance)
        while not self.draining and len(self.instances) < scaling.min and self._make_room():
            if (another := self._fork(self)) is None:
                break
            self.instances.add(another)
        if self._waiting and (self._idle or self._sleeping or not self._full):
            self.call_next()

    def _spare(self) -> bool:
        awake = len(self.instances) - len(self._sleeping)
        return awake > self.spec.scaling.min

    def next_change(self) -> float | None:
        """When `tend` has something to do again, were nothing to happen until then."""
        scaling = self.spec.scaling
        times = [instance.idle_since + scaling.keep_hibernating for instance in self._sleeping]
        if self._spare():
            times += [instance.idle_since + scaling.keep_warm for instance in self._idle]
        if scaling.max_age is not None:
            times += [instance.born + scaling.max_age for instance in self._idle]
        return min(times, default=None)

    @property
    def resting(self) -> list[Instance]:
        """Instances that could be evicted."""
        return [*self._sleeping, *self._idle]

    def evict(self, instance: Instance) -> None:
        """Stop one that has nothing in hand."""
        self._idle.pop(instance, None)
        self._sleeping.pop(instance, None)
        instance.stop()

    def drain(self) -> None:
        """Take no new run; stop what is idle now and the rest as it becomes idle."""
        self.draining = True
        for instance in self.resting:
            self.evict(instance)
        self.call_all()
