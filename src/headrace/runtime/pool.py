"""The instances of one function: lease, give back, replace; and who waits for one.

A run goes to the instance its affinity remembers, else to the one used last, else a hibernating
one is revived, else a new one is forked, else it waits in a bounded line. While runs are known to
be shorter than a fork, a busy instance takes several at once. An instance that dies is dropped;
a run lost with it through no fault of its own is run again, alone. What waits in the line is a run,
not a task: whoever frees an instance hands it the first. The pool decides; time comes in through
`tend`, which its fleet calls.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from headrace.model.errors import Overloaded
from headrace.model.function import FunctionSpec
from headrace.model.outcome import Cause
from headrace.runtime.fleet_run import FleetRun
from headrace.runtime.process.instance import Instance, not_started
from headrace.runtime.states import InstanceState

MAX_WAITING = 4_096
MAX_AFFINITIES = 4_096
MAX_IN_HAND = 32
"""Runs one instance takes at once while they are short."""
SHORT_RUN_S = 0.0005
"""Only while runs take less than this on average do they share an instance,"""
LONG_RUN_S = 0.005
"""and only while none took longer than this of late."""
WAKE_S = 0.0001
"""What waking a process costs: a shorter wait is better spent behind others."""
FORK_S = 0.001
"""What a fork costs, likewise."""
TINY_RUN_S = 0.00002
"""Runs that take less are over before the host has handed over the next: one instance keeps up."""
AHEAD_RUN_S = 0.05
"""While no run took longer than this of late, the next one may be sent to a busy instance: what it
saves is a part of a millisecond, and it is taken back where it would wait longer."""
START_PAUSE_S = 0.1
"""How long no instance is forked after one did not start; twice as long each time,"""
MAX_START_PAUSE_S = 5.0
"""up to this."""
SMOOTHING = 0.1
FADING = 0.9


class Pool:
    """All instances of one version of one function.

    Attributes:
        not_started: Why the latest instance did not start; None where it did.
        starts_again: The monotonic time from which another one is forked after that.
    """

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
        self._sharing: OrderedDict[Instance, None] = OrderedDict()
        self._homes: OrderedDict[str, Instance] = OrderedDict()
        self._waiting: OrderedDict[FleetRun, None] = OrderedDict()
        self._calling = False
        self.not_started: Cause | None = None
        self._start_pause = START_PAUSE_S
        self.starts_again = 0.0
        self._run_s = 1.0
        self._slowest_s = 1.0
        self._short = False
        """Whether runs are so short now that they may share an instance."""

    def keep_pace_of(self, before: Pool) -> None:
        """Take runs for as long as those of the version before, until it is known better.

        Else each run that comes before that would have an instance forked for itself.
        """
        self._run_s, self._slowest_s, self._short = (
            before._run_s,
            before._slowest_s,
            before._short,
        )

    @property
    def waiting(self) -> int:
        """How many runs stand in line."""
        return len(self._waiting)

    @property
    def in_hand(self) -> int:
        """How many runs its instances have not answered."""
        return sum(instance.in_hand for instance in self.instances)

    def start(self, run: FleetRun) -> None:
        """Hand it to an instance, now or when its turn comes.

        Raises:
            Overloaded: The line is full.
            Unavailable: No instance could be forked.
        """
        waiting = self._waiting
        instance = None if waiting else self._choose(run.invocation.affinity, alone=run.alone)
        if instance is not None:
            instance.hand(run)
            return
        if len(waiting) >= MAX_WAITING:
            raise Overloaded(
                f"{MAX_WAITING} invocations of `{self.spec.name}` wait for an instance already; "
                "send slower, or raise `Scaling(max=...)`"
            )
        waiting[run] = None
        run.line = self

    def withdraw(self, run: FleetRun) -> bool:
        """Take it out of the line; False where it is not there any more."""
        if run not in self._waiting:
            return False
        del self._waiting[run]
        # It may have held up others: what is to run alone waits for longer.
        self.call_next()
        return True

    def takes_ahead(self, instance: Instance) -> bool:
        """Whether a run is well placed behind the one that instance has in hand."""
        return (
            self._slowest_s < AHEAD_RUN_S
            # Short ones are placed behind one another anyhow.
            and not self._short
            and not (self._waiting or self.draining)
            and not self._worn_out(instance)
        )

    # -- choosing --------------------------------------------------------------------------------

    def _choose(self, affinity: str, *, alone: bool) -> Instance | None:
        short = self._short
        instance = self._at_home(affinity, alone=alone) if affinity else None
        if instance is None and short and self._sharing and not alone:
            # Waiting behind a few quick runs is cheaper than waking another process.
            instance = self._shared(WAKE_S)
        if instance is None and self._idle:
            instance = next(reversed(self._idle))
        if instance is None:
            instance = self._another(alone=alone)
        if instance is None:
            return None
        if self._idle:
            self._idle.pop(instance, None)
        if self._sleeping:
            self._sleeping.pop(instance, None)
        if alone or not short:
            self._sharing.pop(instance, None)
        else:
            self._sharing[instance] = None
        if affinity and self._homes.get(affinity) is not instance:
            self._homes[affinity] = instance
            if len(self._homes) > MAX_AFFINITIES:
                self._homes.popitem(last=False)
        return instance

    def _at_home(self, affinity: str, *, alone: bool) -> Instance | None:
        """Where this affinity ran last, if it can take the run now."""
        home = self._homes.get(affinity) if affinity else None
        if home is None or home in self._idle:
            return home
        shares = not alone and home in self._sharing and self._takes_more(home)
        return home if shares and home.in_hand * self._run_s < WAKE_S else None

    def _takes_more(self, instance: Instance) -> bool:
        return self._short and instance.in_hand < MAX_IN_HAND and self._is_at_work(instance)

    def _is_at_work(self, instance: Instance) -> bool:
        """Whether a short run may wait behind those that it has in hand."""
        # One that starts will be there before another one that is forked now.
        state = instance.state
        return (
            state is InstanceState.BUSY or state is InstanceState.STARTING
        ) and not self._worn_out(instance)

    def _shared(self, patience_s: float) -> Instance | None:
        """A busy instance that will be free within this time."""
        if not self._short:
            return None
        run_s = self._run_s
        if run_s < TINY_RUN_S:
            patience_s = LONG_RUN_S
        for instance in self._sharing:
            ahead = instance.in_hand
            if ahead * run_s < patience_s and ahead < MAX_IN_HAND and self._is_at_work(instance):
                return instance
        return None

    @property
    def _full(self) -> bool:
        return len(self.instances) >= self.spec.scaling.max

    def _another(self, *, alone: bool) -> Instance | None:
        """One that has to be woken, forked or, while runs are short, shared."""
        if not alone and (shared := self._shared(FORK_S)) is not None:
            return shared
        if self._sleeping:
            return next(reversed(self._sleeping))
        if self._full or not self._make_room():
            return None if alone else self._shared(LONG_RUN_S)
        if self.not_started is not None and self._now() < self.starts_again:
            raise not_started(self.spec.name, self.not_started)
        instance = self._fork(self)
        if instance is not None:
            self.instances.add(instance)
        return instance

    # -- the line --------------------------------------------------------------------------------

    def call_next(self, *, everyone: bool = False) -> None:
        """Begin those first in line, as many as instances can take now.

        Args:
            everyone: Go on where no instance can be forked, and tell each of them; else only the
                first is told, since the rest may yet have an instance that is busy now.
        """
        if self._calling:
            # Whoever is at it already looks at the rest as well.
            return
        self._calling = True
        try:
            while self._waiting:
                run = next(iter(self._waiting))
                instance, trouble = None, None
                if not run.done.done():
                    try:
                        instance = self._choose(run.invocation.affinity, alone=run.alone)
                    except Exception as error:  # noqa: BLE001 - whoever waits is told, not whoever calls
                        trouble = error
                    if instance is None and trouble is None:
                        return
                del self._waiting[run]
                if instance is not None:
                    instance.hand(run)
                elif trouble is not None:
                    run.refused(trouble)
                    if not everyone:
                        return
        finally:
            self._calling = False

    # -- what instances tell ---------------------------------------------------------------------

    def freed(self, instance: Instance) -> None:
        """It has answered a run, or has come up."""
        if instance.in_hand == 0 and instance.state is InstanceState.IDLE:
            self._sharing.pop(instance, None)
            if (self.draining and not self._waiting) or self._worn_out(instance):
                instance.stop()
                return
            self._idle[instance] = None
        if self._waiting and instance.in_hand < MAX_IN_HAND:
            self.call_next()

    def started(self) -> None:
        """One has come up."""
        self.not_started = None
        self._start_pause = START_PAUSE_S

    def start_failed(self, cause: Cause) -> None:
        """One ended before it could take up a run: the next is forked a little later each time."""
        self.not_started = cause
        self.starts_again = self._now() + self._start_pause
        self._start_pause = min(self._start_pause * 2, MAX_START_PAUSE_S)

    def took(self, seconds: float) -> None:
        """A run took this long; the memory of a slow one fades."""
        self._run_s += SMOOTHING * (seconds - self._run_s)
        self._slowest_s = max(seconds, self._slowest_s * FADING)
        self._short = self._run_s < SHORT_RUN_S and self._slowest_s < LONG_RUN_S

    def leaving(self, instance: Instance) -> None:
        """It takes no more runs, though it may not be dead yet."""
        self._idle.pop(instance, None)
        self._sleeping.pop(instance, None)
        self._sharing.pop(instance, None)
        for affinity in [key for key, home in self._homes.items() if home is instance]:
            del self._homes[affinity]

    def gone(self, instance: Instance) -> None:
        """It is dead."""
        self.leaving(instance)
        self.instances.discard(instance)
        self.call_next(everyone=self.not_started is not None and not self.instances)

    def _worn_out(self, instance: Instance) -> bool:
        scaling = self.spec.scaling
        return (
            instance.tainted
            or (
                scaling.max_invocations is not None
                and instance.invocations + instance.in_hand >= scaling.max_invocations
            )
            or (
                scaling.max_instance_age is not None
                and self._now() - instance.born >= scaling.max_instance_age
            )
        )

    # -- time passes -----------------------------------------------------------------------------

    def tend(self, now: float) -> None:
        """Kill what overran, put to sleep what was idle long, evict what slept long, keep `min`."""
        scaling = self.spec.scaling
        for instance in list(self.instances):
            instance.overrun(now)
        for instance in list(self._idle):
            if instance.state is not InstanceState.IDLE:
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
        while (
            not self.draining
            and len(self.instances) < scaling.min
            and (self.not_started is None or now >= self.starts_again)
            and self._make_room()
        ):
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
        if scaling.max_instance_age is not None:
            times += [instance.born + scaling.max_instance_age for instance in self._idle]
        if self.not_started is not None and len(self.instances) < scaling.min:
            times.append(self.starts_again)
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

    def drain(self, *, serves_line: bool = False) -> None:
        """Take no new run; stop what is idle now and the rest as it becomes idle.

        Args:
            serves_line: Run what waits in line, which nobody else could; else each is submitted again,
                to the pool that has taken this one's place.
        """
        self.draining = True
        if serves_line and self._waiting:
            return
        for instance in self.resting:
            self.evict(instance)
        waiting, self._waiting = self._waiting, OrderedDict()
        for run in waiting:
            run.restart()
