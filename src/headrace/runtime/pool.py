"""Pool of the instances of one function, and the queue of runs that wait for one.

A run goes to the last instance of its affinity key, else to the instance used last, else a
hibernating one is resumed, else a new one is forked, else the run waits in a bounded queue. While
runs are shorter than a fork, a busy instance takes several at once. A dead instance is dropped; a
run that was lost with it and is not to blame runs again, alone. The queue holds runs, not tasks: an
instance that becomes free takes the first. The fleet calls `maintain` periodically.
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
MAX_IN_FLIGHT = 32
"""Runs that one instance takes at once while they are short."""
SHORT_RUN_S = 0.0005
"""Runs share an instance only while they take less than this on average,"""
LONG_RUN_S = 0.005
"""and only while none took longer than this recently."""
WAKE_S = 0.0001
"""The cost of waking a process: a shorter wait behind other runs is cheaper."""
FORK_S = 0.001
"""The cost of a fork, likewise."""
TINY_RUN_S = 0.00002
"""Shorter runs end before the host has sent the next one: one instance keeps up."""
AHEAD_RUN_S = 0.05
"""While no run took longer than this recently, the next one may be sent ahead to a busy instance. That saves a part of a
millisecond; the run is taken back if it would wait longer."""
START_PAUSE_S = 0.1
"""The pause before the next fork after an instance did not start; it doubles each time,"""
MAX_START_PAUSE_S = 5.0
"""up to this."""
SMOOTHING = 0.1
FADING = 0.9


class Pool:
    """All instances of one version of one function.

    Attributes:
        not_started: Why the latest instance did not start; None if it did.
        starts_again: The monotonic time of the next fork after that.
    """

    def __init__(
        self,
        spec: FunctionSpec,
        *,
        fork: Callable[[Pool], Instance | None],
        free_capacity: Callable[[], bool],
        now: Callable[[], float],
    ) -> None:
        self.spec = spec
        self.instances: set[Instance] = set()
        self.draining = False
        self._fork = fork
        self._free_capacity = free_capacity
        self._now = now
        self._idle: OrderedDict[Instance, None] = OrderedDict()
        self._sleeping: OrderedDict[Instance, None] = OrderedDict()
        self._sharing: OrderedDict[Instance, None] = OrderedDict()
        self._affinities: OrderedDict[str, Instance] = OrderedDict()
        self._waiting: OrderedDict[FleetRun, None] = OrderedDict()
        self._calling = False
        self.not_started: Cause | None = None
        self._start_pause = START_PAUSE_S
        self.starts_again = 0.0
        # Long until measured: sharing an instance before that could delay runs behind a slow one.
        self._run_s = 1.0
        self._slowest_s = 1.0
        self._short = False
        """Whether runs are currently so short that they may share an instance."""

    def keep_pace_of(self, before: Pool) -> None:
        """Start with the run times of the former version.

        Without them each run before the first measurements would fork an instance.
        """
        self._run_s, self._slowest_s, self._short = (
            before._run_s,
            before._slowest_s,
            before._short,
        )

    @property
    def waiting(self) -> int:
        """Return how many runs wait."""
        return len(self._waiting)

    @property
    def in_flight(self) -> int:
        """Return how many runs its instances have not answered."""
        return sum(instance.in_flight for instance in self.instances)

    def start(self, run: FleetRun) -> None:
        """Start a run on an instance, now or when one is free.

        Raises:
            Overloaded: The queue is full.
            Unavailable: No instance could be forked.
        """
        waiting = self._waiting
        # A run may not overtake those that wait, even if an instance is free for it.
        instance = None if waiting else self._choose(run.invocation.affinity, alone=run.alone)
        if instance is not None:
            instance.run(run)
            return
        if len(waiting) >= MAX_WAITING:
            raise Overloaded(
                f"{MAX_WAITING} invocations of `{self.spec.name}` wait for an instance already; "
                "send slower, or raise `Scaling(max=...)`"
            )
        waiting[run] = None
        run.queue = self

    def withdraw(self, run: FleetRun) -> bool:
        """Remove a waiting run; False if it does not wait any more."""
        if run not in self._waiting:
            return False
        del self._waiting[run]
        # It may have blocked those behind it: a run that must run alone waits for an idle
        # instance.
        self.call_next()
        return True

    def takes_ahead(self, instance: Instance) -> bool:
        """Return whether a run should be sent ahead behind the instance's current one."""
        return (
            self._slowest_s < AHEAD_RUN_S
            # Short runs share instances anyhow, without the cost of a claim.
            and not self._short
            and not (self._waiting or self.draining)
            and not self._needs_replacement(instance)
        )

    # -- choosing --------------------------------------------------------------------------------

    def _choose(self, affinity: str, *, alone: bool) -> Instance | None:
        short = self._short
        instance = self._affine(affinity, alone=alone) if affinity else None
        if instance is None and short and self._sharing and not alone:
            # Waiting behind a few short runs is cheaper than waking another process.
            instance = self._shared(WAKE_S)
        if instance is None and self._idle:
            # The one used last: its caches are warm, and the others stay idle and can hibernate.
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
        if affinity and self._affinities.get(affinity) is not instance:
            self._affinities[affinity] = instance
            if len(self._affinities) > MAX_AFFINITIES:
                self._affinities.popitem(last=False)
        return instance

    def _affine(self, affinity: str, *, alone: bool) -> Instance | None:
        """Return the last instance of this affinity key, if it can take the run now."""
        home = self._affinities.get(affinity) if affinity else None
        if home is None or home in self._idle:
            return home
        shares = not alone and home in self._sharing and self._takes_more(home)
        return home if shares and home.in_flight * self._run_s < WAKE_S else None

    def _takes_more(self, instance: Instance) -> bool:
        return self._short and instance.in_flight < MAX_IN_FLIGHT and self._is_at_work(instance)

    def _is_at_work(self, instance: Instance) -> bool:
        """Return whether a short run may wait behind its runs in flight."""
        # A starting instance is ready before one that would be forked now.
        state = instance.state
        return (
            state is InstanceState.BUSY or state is InstanceState.STARTING
        ) and not self._needs_replacement(instance)

    def _shared(self, most_wait_s: float) -> Instance | None:
        """Return a busy instance that will be free within this time."""
        if not self._short:
            return None
        run_s = self._run_s
        if run_s < TINY_RUN_S:
            most_wait_s = LONG_RUN_S
        for instance in self._sharing:
            ahead = instance.in_flight
            if ahead * run_s < most_wait_s and ahead < MAX_IN_FLIGHT and self._is_at_work(instance):
                return instance
        return None

    @property
    def _full(self) -> bool:
        return len(self.instances) >= self.spec.scaling.max

    def _another(self, *, alone: bool) -> Instance | None:
        """Return an instance that is resumed, forked or, while runs are short, shared."""
        if not alone and (shared := self._shared(FORK_S)) is not None:
            return shared
        if self._sleeping:
            return next(reversed(self._sleeping))
        if self._full or not self._free_capacity():
            # At the limit even a longer wait behind others is better than none.
            return None if alone else self._shared(LONG_RUN_S)
        # Refused rather than queued: each start fails after its hooks ran, and a queue would fill
        # meanwhile.
        if self.not_started is not None and self._now() < self.starts_again:
            raise not_started(self.spec.name, self.not_started)
        instance = self._fork(self)
        if instance is not None:
            self.instances.add(instance)
        return instance

    # -- waiting runs --------------------------------------------------------------------------------

    def call_next(self, *, refuse_all: bool = False) -> None:
        """Start waiting runs, in order, as many as instances can take now.

        Args:
            refuse_all: Refuse all of them if no instance can be forked. By default only the first is refused, since a
                busy instance may still serve the others.
        """
        if self._calling:
            # Re-entered from below, by an instance that was freed: the outer call looks at the
            # rest.
            return
        self._calling = True
        try:
            while self._waiting:
                run = next(iter(self._waiting))
                instance, trouble = None, None
                # A waiter that has been cancelled needs no instance.
                if not run.done.done():
                    try:
                        instance = self._choose(run.invocation.affinity, alone=run.alone)
                    except Exception as error:  # noqa: BLE001 - reported to the waiter, not to the caller
                        trouble = error
                    if instance is None and trouble is None:
                        return
                del self._waiting[run]
                if instance is not None:
                    instance.run(run)
                elif trouble is not None:
                    run.refused(trouble)
                    if not refuse_all:
                        return
        finally:
            self._calling = False

    # -- events of instances ---------------------------------------------------------------------

    def freed(self, instance: Instance) -> None:
        """Use an instance that has answered a run, or has started."""
        if instance.in_flight == 0 and instance.state is InstanceState.IDLE:
            self._sharing.pop(instance, None)
            if (self.draining and not self._waiting) or self._needs_replacement(instance):
                instance.stop()
                return
            self._idle[instance] = None
        if self._waiting and instance.in_flight < MAX_IN_FLIGHT:
            self.call_next()

    def started(self) -> None:
        """Take note that an instance has started."""
        self.not_started = None
        self._start_pause = START_PAUSE_S

    def start_failed(self, cause: Cause) -> None:
        """Take note that an instance ended before it could accept a run; delay the next fork, longer each time."""
        self.not_started = cause
        self.starts_again = self._now() + self._start_pause
        self._start_pause = min(self._start_pause * 2, MAX_START_PAUSE_S)

    def ran(self, seconds: float) -> None:
        """Take note of a run's time; the influence of a slow one fades."""
        self._run_s += SMOOTHING * (seconds - self._run_s)
        # The average alone would let one slow key hold up the short runs behind it.
        self._slowest_s = max(seconds, self._slowest_s * FADING)
        self._short = self._run_s < SHORT_RUN_S and self._slowest_s < LONG_RUN_S

    def leaving(self, instance: Instance) -> None:
        """Remove an instance that accepts no more runs, though it may still run."""
        self._idle.pop(instance, None)
        self._sleeping.pop(instance, None)
        self._sharing.pop(instance, None)
        for affinity in [key for key, home in self._affinities.items() if home is instance]:
            del self._affinities[affinity]

    def gone(self, instance: Instance) -> None:
        """Remove a dead instance."""
        self.leaving(instance)
        self.instances.discard(instance)
        self.call_next(refuse_all=self.not_started is not None and not self.instances)

    def _needs_replacement(self, instance: Instance) -> bool:
        scaling = self.spec.scaling
        return (
            instance.tainted
            or (
                scaling.max_invocations is not None
                and instance.invocations + instance.in_flight >= scaling.max_invocations
            )
            or (
                scaling.max_instance_age is not None
                and self._now() - instance.created_at >= scaling.max_instance_age
            )
        )

    # -- periodic work -----------------------------------------------------------------------------

    def maintain(self, now: float) -> None:
        """Kill overdue instances, hibernate idle ones, evict hibernating ones, and keep `min` of them."""
        scaling = self.spec.scaling
        for instance in list(self.instances):
            instance.overrun(now)
        for instance in list(self._idle):
            if instance.state is not InstanceState.IDLE:
                self._idle.pop(instance)
            elif self._needs_replacement(instance):
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
            and self._free_capacity()
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
        """Return when `maintain` must be called next, if nothing else happens."""
        scaling = self.spec.scaling
        times = [instance.idle_since + scaling.keep_hibernating for instance in self._sleeping]
        if self._spare():
            times += [instance.idle_since + scaling.keep_warm for instance in self._idle]
        if scaling.max_instance_age is not None:
            times += [instance.created_at + scaling.max_instance_age for instance in self._idle]
        if self.not_started is not None and len(self.instances) < scaling.min:
            times.append(self.starts_again)
        return min(times, default=None)

    @property
    def resting(self) -> list[Instance]:
        """Return the instances that could be evicted, hibernating ones first."""
        return [*self._sleeping, *self._idle]

    def evict(self, instance: Instance) -> None:
        """Stop an instance without runs in flight."""
        self._idle.pop(instance, None)
        self._sleeping.pop(instance, None)
        instance.stop()

    def drain(self, *, serves_waiting: bool = False) -> None:
        """Accept no new run; stop idle instances now and the others as they become idle.

        Args:
            serves_waiting: Run the waiting runs here, since no other pool has this function; else each is submitted again,
                to the pool that replaces this one.
        """
        self.draining = True
        if serves_waiting and self._waiting:
            return
        for instance in self.resting:
            self.evict(instance)
        waiting, self._waiting = self._waiting, OrderedDict()
        for run in waiting:
            run.restart()
