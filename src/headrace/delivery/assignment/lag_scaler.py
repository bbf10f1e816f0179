"""Number of instances that consume a stream, by its lag, and their partitions.

In: assignments of the subscription, positions and the ends of the log. Out: runs without events, each with a share of
the partitions, started and recalled as the `Lag` trigger says. A share is claimed again for every run, which fences the
commits of earlier runs.
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
RETRYABLE = (Conflict, Fenced, Unavailable)
"""The store is unavailable, or another node was faster: retried, and not logged."""

Share = tuple[int, ...]


class LagScaler:
    """One function's consumers on this node. Its one task starts runs; other tasks may wake it.

    Attributes:
        paused: Whether no new run starts and the active ones end.
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
        self._running: dict[Share, tuple[ConsumerRun, asyncio.Task[None]]] = {}
        self._backoffs: dict[Share, tuple[float, float]] = {}
        self._count = 0
        self._is_woken = False
        self._assignment: Assigned | Revoked | None = None

    # --- assigned partitions ----------------------------------------------------------------

    async def follow(self) -> None:
        """Claim and release partitions as the subscription assigns them."""
        name, backoff = f"scaler {self._spec.name}", self._engine.backoff()
        working = self._engine.tasks.supervise(self._work, name=name, backoff=backoff)
        try:
            while True:
                # Kept until it is applied: after a failure here the supervisor calls this again,
                # and a lost assignment would never come back.
                if self._assignment is None:
                    self._assignment = await self._subscription.read()
                match self._assignment:
                    case Assigned(partitions=partitions):
                        for partition in partitions:
                            await self._claim_reader(partition)
                        hit("recovery:claimed")
                        self.wake()
                    case Revoked(partitions=partitions):
                        await self._release(partitions)
                        await self._subscription.released(partitions)
                self._assignment = None
        finally:
            await working.stop()

    async def close(self) -> None:
        """Recall the active runs and wait for their end; call it after `follow` has ended."""
        await self._release(tuple(self._readers))

    async def _claim_reader(self, partition: int) -> None:
        if partition in self._readers:
            return
        stream, pause, end = self._trigger.stream, PAUSE_MIN_S, None
        while end is None:
            try:
                # The claim stores the start position now: with `latest`, events that come before
                # the first run must not be skipped.
                await self._claim(partition)
                end = (await self._engine.log.extent(stream, partition)).high
            except RETRYABLE:
                await self._engine.clock.sleep(self._engine.random.uniform(pause / 2, pause))
        self._readers[partition] = self._subscription.reader(stream, partition, end)

    async def _release(self, partitions: Sequence[int]) -> None:
        """Recall the runs that hold any of these partitions, and wait for their end."""
        gone = {each: self._readers.pop(each) for each in partitions if each in self._readers}
        ending = [
            (consumer, run)
            for share, (consumer, run) in self._running.items()
            if set(share) & set(gone)
        ]
        for consumer, _ in ending:
            consumer.recall()
        if ending:
            # Before the partitions are released: a later commit of these runs would be fenced, and
            # their work lost.
            await asyncio.wait([run for _, run in ending])
        for reader in gone.values():
            reader.close()

    def wake(self) -> None:
        """Measure the lag soon."""
        self._is_woken = True
        self._waiting.wake()

    def pause(self, paused: bool) -> None:
        """Start no new run (or continue)."""
        self.paused = paused
        self.wake()

    def state_of(self, partition: int) -> str:
        """Return the state of the partition here, in words."""
        if self.paused:
            return "paused"
        if any(partition in share for share in self._running):
            return "running"
        if any(partition in share for share in self._backoffs):
            return "retrying"
        return "waiting for lag" if partition in self._readers else "stopped"

    # --- starting runs --------------------------------------------------------------------------

    async def _work(self) -> None:
        """Measure the lag, start runs, and wait for a change, for ever."""
        while True:
            # Cleared before the lag is measured: a wake-up during the measurement leads to another
            # one.
            self._is_woken = False
            try:
                rest = await self._start_wanted()
            except RETRYABLE:
                rest = self._engine.random.uniform(PAUSE_MIN_S, 1.0)
            if not self._is_woken:
                await self._waiting.wait(rest, tuple(self._readers.values()))
            # Also after a wake-up, so that lag is measured at most once per `every_s`.
            await self._engine.clock.sleep(self._trigger.every_s)

    async def _start_wanted(self) -> float | None:
        """Start the wanted runs; return the seconds until a failed share may run again."""
        lags = {each: await self._behind(each) for each in sorted(self._readers)}
        wanted = self._wanted(sum(lags.values()))
        if wanted != self._count and self._running:
            # Shares change only after all active runs have ended, as no partition may be in two.
            # If fewer runs are wanted, the active ones continue until no events are left, unless a
            # partition without a run has lag.
            held = {each for share in self._running for each in share}
            idle = any(lag for each, lag in lags.items() if each not in held)
            if wanted > self._count or self.paused or (wanted and idle):
                for consumer, _ in self._running.values():
                    consumer.recall()
            return None
        self._count = wanted
        now, soonest = self._engine.clock.monotonic(), list[float]()
        for share in shares(tuple(lags), wanted):
            if share in self._running or not any(lags[each] for each in share):
                continue
            until = self._backoffs.get(share, (0.0, 0.0))[1]
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
            # The reader is only used to wake the scaler, at the first new event.
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
            # Revoked during the claim: the new owner claims it again, which fences this one.
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
        self._running[share] = consumer, run

    async def _run(self, share: Share, consumer: ConsumerRun) -> None:
        """Run one share; effects that were not committed are lost."""
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
            self._running.pop(share, None)
            for partition, missed in consumer.missed:
                self._engine.telemetry.missed(
                    self._spec.name, partition, missed, self._engine.clock.now()
                )
            self._back_off(share, failed)
            self.wake()

    def _back_off(self, share: Share, failed: str) -> None:
        """Pause a share after a failed run, longer each time."""
        if not failed:
            self._backoffs.pop(share, None)
            return
        pause = min(self._backoffs.get(share, (PAUSE_MIN_S / 2, 0.0))[0] * 2, PAUSE_MAX_S)
        until = self._engine.clock.monotonic() + self._engine.random.uniform(pause / 2, pause)
        self._backoffs[share] = pause, until
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
            # The run gets no events after `lifespan_s`; the function's timeout remains for its
            # end.
            timeout=self._trigger.lifespan_s + self._spec.timeout,
            token=consumer.token,
            key=f"{self._spec.name}:consume/{at}",
            now=self._engine.clock.now(),
            seed=self._engine.random.integer(62),
            held=consumer.held,
        )


def shares(partitions: Sequence[int], count: int) -> list[Share]:
    """Divide the partitions among so many runs."""
    return [tuple(partitions[place::count]) for place in range(min(count, len(partitions)))]
