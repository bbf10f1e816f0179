"""How many instances of a function consume a stream, decided by its lag, and over which partitions.

In: what the subscription assigns, positions against the log's ends. Out: runs without events, each
with a share of the partitions, started and recalled as the `Lag` trigger says. A share is claimed
anew for every run, so whatever a former run still tries is fenced off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from headrace.delivery.assignment.consumer_run import ConsumerRun, ConsumerRuns
from headrace.delivery.commit.publish_checks import PublishChecks
from headrace.delivery.engine import Engine
from headrace.delivery.partition.wakeup import Wakeup
from headrace.delivery.positions import Claim, claim, decode_position, position_key
from headrace.environment.failpoints import hit
from headrace.model.effects import Progress, Space
from headrace.model.errors import Conflict, Fenced, HeadraceError, Unavailable
from headrace.model.function import FunctionSpec
from headrace.model.invocation import ConsumerInvocation
from headrace.model.outcome import Cause
from headrace.model.triggers.lag import Lag
from headrace.runtime.base import Submit, invoke
from headrace.storage.log.base import Assigned, Reader, Revoked, Subscription
from headrace.telemetry.history import run_of

PAUSE_MIN_S, PAUSE_MAX_S = 0.2, 30.0
AWAY = (Conflict, Fenced, Unavailable)
"""The store is away, or another node was quicker: to be tried again, and nothing to tell."""

Share = tuple[int, ...]


class LagScaler:
    """One function's consumers on this node. Its one task starts runs; anybody may wake it.

    Attributes:
        paused: Start nothing new, and let what runs come to its end.
    """

    def __init__(
        self,
        spec: FunctionSpec,
        trigger: Lag,
        subscription: Subscription,
        *,
        engine: Engine,
        submit: Submit,
        consumer_runs: ConsumerRuns,
        publish_checks: PublishChecks,
    ) -> None:
        self.paused = False
        self._spec = spec
        self._trigger = trigger
        self._subscription = subscription
        self._engine = engine
        self._submit = submit
        self._consumer_runs = consumer_runs
        self._publish_checks = publish_checks
        self._waiting = Wakeup()
        self._readers: dict[int, Reader] = {}
        self._on: dict[Share, tuple[ConsumerRun, asyncio.Task[None]]] = {}
        self._rests: dict[Share, tuple[float, float]] = {}
        self._count = 0
        self._news = False
        self._told: Assigned | Revoked | None = None

    # --- what this node owns ----------------------------------------------------------------

    async def follow(self) -> None:
        """Take partitions up and let them go as the subscription says."""
        name, backoff = f"scaler {self._spec.name}", self._engine.backoff()
        working = self._engine.tasks.supervise(self._work, name=name, backoff=backoff)
        try:
            while True:
                # Kept until it is done: a failure of ours must not forget a partition.
                if self._told is None:
                    self._told = await self._subscription.read()
                match self._told:
                    case Assigned(partitions=partitions):
                        for partition in partitions:
                            await self._take_up(partition)
                        hit("recovery:claimed")
                        self.wake()
                    case Revoked(partitions=partitions):
                        await self._let_go(partitions)
                        await self._subscription.released(partitions)
                self._told = None
        finally:
            await working.stop()

    async def close(self) -> None:
        """Recall what runs, and wait for its end; it is followed no more."""
        await self._let_go(tuple(self._readers))

    async def _take_up(self, partition: int) -> None:
        if partition in self._readers:
            return
        stream, pause, end = self._trigger.stream, PAUSE_MIN_S, None
        while end is None:
            try:
                # So that the group begins here, even where nothing runs for a long time.
                await self._claim(partition)
                end = (await self._engine.log.extent(stream, partition)).high
            except AWAY:
                await self._engine.clock.sleep(self._engine.random.uniform(pause / 2, pause))
        self._readers[partition] = self._subscription.reader(stream, partition, end)

    async def _let_go(self, partitions: Sequence[int]) -> None:
        """Recall the runs that hold any of them, and wait for their ends."""
        gone = {each: self._readers.pop(each) for each in partitions if each in self._readers}
        ending = [
            (consumer, run) for share, (consumer, run) in self._on.items() if set(share) & set(gone)
        ]
        for consumer, _ in ending:
            consumer.recall()
        if ending:
            await asyncio.wait([run for _, run in ending])
        for reader in gone.values():
            reader.close()

    def wake(self) -> None:
        """Look at the lag soon."""
        self._news = True
        self._waiting.wake()

    def pause(self, paused: bool) -> None:
        """Start nothing new (or go on again)."""
        self.paused = paused
        self.wake()

    def state_of(self, partition: int) -> str:
        """What becomes of the partition here, in words."""
        if self.paused:
            return "paused"
        if any(partition in share for share in self._on):
            return "running"
        if any(partition in share for share in self._rests):
            return "retrying"
        return "waiting for lag" if partition in self._readers else "stopped"

    # --- who works --------------------------------------------------------------------------

    async def _work(self) -> None:
        """Look, decide, start; then wait for news."""
        while True:
            self._news = False
            try:
                rest = await self._staff()
            except AWAY:
                rest = self._engine.random.uniform(PAUSE_MIN_S, 1.0)
            if not self._news:
                await self._waiting.wait(rest, tuple(self._readers.values()))
            await self._engine.clock.sleep(self._trigger.every_s)

    async def _staff(self) -> float | None:
        """Start what is to run now; seconds until something that rests may run again."""
        lags = {each: await self._behind(each) for each in sorted(self._readers)}
        wanted = self._wanted(sum(lags.values()))
        if wanted != self._count and self._on:
            # The partitions are shared out anew once the runs that are on have ended. Where fewer
            # are wanted these go on until nothing is there, as long as nothing waits for them.
            held = {each for share in self._on for each in share}
            idle = any(lag for each, lag in lags.items() if each not in held)
            if wanted > self._count or self.paused or (wanted and idle):
                for consumer, _ in self._on.values():
                    consumer.recall()
            return None
        self._count = wanted
        now, soonest = self._engine.clock.monotonic(), list[float]()
        for share in shares(tuple(lags), wanted):
            if share in self._on or not any(lags[each] for each in share):
                continue
            until = self._rests.get(share, (0.0, 0.0))[1]
            if until > now:
                soonest.append(until - now)
            else:
                await self._start(share)
        return min(soonest, default=None)

    def _wanted(self, lag: int) -> int:
        if self.paused:
            return 0
        return min(self._trigger.instances(lag, self._count), len(self._readers))

    async def _behind(self, partition: int) -> int:
        stream = self._trigger.stream
        row = await self._engine.storage.get(
            Space.POSITIONS, position_key(self._spec.name, stream, partition)
        )
        extent = await self._engine.log.extent(stream, partition)
        if (reader := self._readers.get(partition)) is not None:
            reader.seek(extent.high)
        progress = Progress(extent.low) if row is None else decode_position(row).progress
        return progress.unfinished(extent.low, extent.high)

    async def _claim(self, partition: int) -> Claim:
        return await claim(
            self._engine.storage,
            self._engine.log,
            function=self._spec.name,
            stream=self._trigger.stream,
            partition=partition,
            start=self._trigger.start,
        )

    # --- one run ----------------------------------------------------------------------------

    async def _start(self, share: Share) -> None:
        claims = {each: await self._claim(each) for each in share}
        if not self._readers.keys() >= set(share):
            # Let go of meanwhile: whoever has it now claims it anew.
            return
        token = self._engine.random.integer(62) + 1
        consumer = ConsumerRun(
            self._spec,
            self._trigger.stream,
            claims,
            token=token,
            ends=self._engine.clock.monotonic() + self._trigger.lifespan_s,
            engine=self._engine,
            publish_checks=self._publish_checks,
        )
        run = self._engine.tasks.start(
            self._run(share, consumer), name=f"consume {self._spec.name}"
        )
        self._on[share] = consumer, run

    async def _run(self, share: Share, consumer: ConsumerRun) -> None:
        """From the claim to the end; what did not land was not done."""
        started, failed = self._engine.clock.monotonic(), ""
        invocation = self._invocation(consumer)
        self._consumer_runs.open(invocation.token, consumer)
        try:
            outcome = await invoke(self._submit, invocation)
            self._engine.telemetry.record(
                run_of(invocation, outcome, self._engine.clock.monotonic() - started)
            )
            whole = outcome.whole
            if type(whole) is Cause:
                failed = f"{whole.kind}: {whole.message}"
            else:
                await consumer.commit(whole)
        except HeadraceError as error:
            failed = f"{type(error).__name__}: {error}"
        except Exception as error:
            failed = f"{type(error).__name__}: {error}"
            raise
        finally:
            self._consumer_runs.end(invocation.token)
            self._on.pop(share, None)
            for partition, missed in consumer.missed:
                self._engine.telemetry.missed(
                    self._spec.name, partition, missed, self._engine.clock.now()
                )
            self._note(share, failed)
            self.wake()

    def _note(self, share: Share, failed: str) -> None:
        """A share whose run failed rests, longer each time."""
        if not failed:
            self._rests.pop(share, None)
            return
        pause = min(self._rests.get(share, (PAUSE_MIN_S / 2, 0.0))[0] * 2, PAUSE_MAX_S)
        until = self._engine.clock.monotonic() + self._engine.random.uniform(pause / 2, pause)
        self._rests[share] = pause, until
        self._engine.telemetry.write(
            time=self._engine.clock.now(),
            function=self._spec.name,
            instance="",
            key="",
            level="warning",
            text=f"a run that consumed partitions {share} ended without its last effects: {failed}",
        )

    def _invocation(self, consumer: ConsumerRun) -> ConsumerInvocation:
        at = consumer.held[0]
        return ConsumerInvocation(
            self._spec.name,
            timeout=self._trigger.lifespan_s + self._spec.timeout,
            token=consumer.token,
            key=f"{self._spec.name}:consume/{at}",
            now=self._engine.clock.now(),
            seed=self._engine.random.integer(62),
            held=consumer.held,
        )


def shares(partitions: Sequence[int], count: int) -> list[Share]:
    """The partitions, dealt out to so many runs."""
    return [tuple(partitions[place::count]) for place in range(min(count, len(partitions)))]
