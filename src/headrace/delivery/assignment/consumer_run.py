"""A run that consumes by itself: which partitions it holds, what it was given, what lands for it.

In: claims of partitions, then a child's wishes to fetch and to commit. Out: chunks in order, and one
change for each commit: positions, outputs and state together, fenced by the rows of the claims. A
child can commit only what it was given here; after a commit that did not land, nothing more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping

from msgspec.structs import replace

from headrace.delivery.commit.changes import change_of
from headrace.delivery.commit.committer import Committer
from headrace.delivery.commit.publish_checks import PublishChecks
from headrace.delivery.parked import encode_event
from headrace.delivery.partition.settle import RUNAWAY
from headrace.delivery.positions import Claim
from headrace.delivery.unit import pick
from headrace.environment.clock import Clock
from headrace.model.effects import DeadEvent, Effects, Missed, Progress
from headrace.model.errors import Fenced, Misuse, Refused
from headrace.model.function import FunctionSpec
from headrace.model.hop_limit import next_hop, runs_away
from headrace.model.outcome import Returned
from headrace.model.record import Chunk, Position
from headrace.storage.log.base import Broker

MAX_FETCH = 10_000
MAX_UNCOMMITTED = 100_000
"""Events one run may have fetched and not committed."""


class ConsumerRun:
    """One run's hold on its partitions. Its child asks for one thing at a time.

    Attributes:
        partitions: What it holds.
        token: The version of the state it writes next; one more with each commit, as in the child.
        given: Events handed out so far.
        missed: What retention had taken before it was handed out, by partition.
    """

    def __init__(
        self,
        spec: FunctionSpec,
        stream: str,
        claims: Mapping[int, Claim],
        *,
        token: int,
        ends: float,
        committer: Committer,
        broker: Broker,
        clock: Clock,
        vetting: PublishChecks,
    ) -> None:
        self.partitions = tuple(claims)
        self.token = token
        self.given = 0
        self.missed: list[tuple[int, Missed]] = []
        self._spec = spec
        self._stream = stream
        self._ends = ends
        self._committer = committer
        self._broker = broker
        self._clock = clock
        self._vetting = vetting
        self._rows = {(stream, partition): claimed.row for partition, claimed in claims.items()}
        standings = {partition: claimed.standing for partition, claimed in claims.items()}
        self._epochs = {(stream, each): known.epoch for each, known in standings.items()}
        self._at = {each: known.progress.watermark for each, known in standings.items()}
        self._sparse = {each: set(known.progress.sparse) for each, known in standings.items()}
        self._troubled = [(stream, each) for each, known in standings.items() if known.trouble]
        self._turns = deque(claims)
        self._open: list[Chunk] = []
        self._dead: list[DeadEvent] = []
        self._busy = asyncio.Lock()
        self._over = self._closed = False

    @property
    def held(self) -> tuple[Position, ...]:
        """What it holds, and from where."""
        return tuple(Position(self._stream, each, self._at[each]) for each in self.partitions)

    def recall(self) -> None:
        """Hand out nothing more; the run comes to its end by itself."""
        self._over = True

    def close(self) -> None:
        """The run has ended: whatever it still asks is refused."""
        self._closed = True

    async def fetch(self, events: int) -> tuple[list[Chunk], int]:
        """The next events (none: come to an end), and how many were not fetched.

        Raises:
            Fenced: The shift is over.
            Misuse: Too much was fetched without a commit.
        """
        async with self._busy:
            self._must_hold()
            room, size = min(max(events, 0), MAX_FETCH), self._spec.batch_bytes
            if sum(chunk.size for chunk in self._open) + room > MAX_UNCOMMITTED:
                raise Misuse(
                    f"more than {MAX_UNCOMMITTED:,} events were fetched without a commit; call "
                    "`context.consumer.commit()` in between"
                )
            found: list[Chunk] = []
            if not self._over and self._clock.monotonic() < self._ends:
                self._turns.rotate(-1)
                for partition in self._turns:
                    if room <= 0 or size <= 0:
                        break
                    chunks = await self._read(partition, room, size)
                    room -= sum(chunk.size for chunk in chunks)
                    size -= sum(len(chunk.body) * chunk.size // chunk.count for chunk in chunks)
                    found += chunks
            self._open += found
            self.given += sum(chunk.size for chunk in found)
            return found, await self._behind()

    async def _read(self, partition: int, events: int, size: int) -> list[Chunk]:
        """What comes next in one partition: what is done or runs away is passed over."""
        at = self._at[partition]
        chunks = await self._broker.fetch(self._stream, partition, at, events=events, size=size)
        if not chunks:
            # Only what retention or compaction has removed can lie here.
            high = (await self._broker.extent(self._stream, partition)).high
            self._miss(partition, at, high)
            self._at[partition] = max(at, high)
            return []
        self._miss(partition, at, chunks[0].start)
        self._at[partition] = max(at, chunks[-1].end)
        done, passing = self._sparse[partition], list[Chunk]()
        for chunk in chunks:
            if runs_away(chunk.hops):
                self._dead += self._buried(chunk)
                continue
            offsets = [chunk.offset_of(index) for index in range(chunk.low, chunk.high)]
            passing += pick(
                (chunk,),
                [i for i, offset in enumerate(offsets) if offset >= at and offset not in done],
            )
        return passing

    def _miss(self, partition: int, low: int, high: int) -> None:
        """Note what retention has taken; what compaction takes, nobody is meant to see."""
        if low < high and self._broker.stream(self._stream).cleanup == "delete":
            done = sum(1 for offset in self._sparse[partition] if low <= offset < high)
            if count := high - low - done:
                self.missed.append((partition, Missed(self._stream, low, high, count)))

    def _buried(self, chunk: Chunk) -> list[DeadEvent]:
        """The events of a chain that does not end."""
        now = self._clock.now()
        return [
            DeadEvent(
                self._spec.name,
                Position(chunk.stream, chunk.partition, chunk.offset_of(index)),
                encode_event(event),
                RUNAWAY.cause,
                1,
                chunk.appended,
                now,
                chunk.hops,
                chunk.origin,
            )
            for index, event in enumerate(chunk.events(), start=chunk.low)
        ]

    async def _behind(self) -> int:
        lag = 0
        for partition in self._at:
            extent = await self._broker.extent(self._stream, partition)
            lag += self._progress(partition).unfinished(extent.low, extent.high)
        return lag

    def _progress(self, partition: int) -> Progress:
        at = self._at[partition]
        return Progress(at, tuple(sorted(each for each in self._sparse[partition] if each >= at)))

    async def land(self, returned: Returned) -> None:
        """Commit: everything handed out counts as done, and what was done for it lands.

        Raises:
            Fenced: The shift is over, or another owner has a partition.
            Conflict: State it relied on has changed.
            Refused: It publishes where it may not.
        """
        async with self._busy:
            self._must_hold()
            # Until it has landed: whatever goes wrong, this run's books are of no use any more.
            self._closed = True
            vetted = self._vetting(self._spec, returned)
            if not isinstance(vetted, Returned) or vetted.error is not None or vetted.failures:
                cause = vetted.error if isinstance(vetted, Returned) else vetted.cause
                raise Refused(cause.message if cause is not None else "single events cannot fail")
            change, rows = change_of(self._effects(vetted), self._rows)
            if change.puts or change.deletes or change.appends or returned.reads:
                await self._committer.commit(change)
            self._rows = rows
            self.token += 1
            self._open.clear()
            self._dead.clear()
            self._troubled.clear()
            self._closed = False

    def _effects(self, returned: Returned) -> Effects:
        # The lineage is the platform's word, never the child's.
        hops, origin = next_hop(self._open)
        progress = {(self._stream, each): self._progress(each) for each in self._at}
        return Effects(
            function=self._spec.name,
            app=self._spec.app,
            epoch=self._epochs,
            progress=progress,
            appends=tuple(replace(append, hops=hops, origin=origin) for append in returned.appends),
            reads=returned.reads,
            writes=returned.writes,
            token=self.token,
            trouble=dict.fromkeys(self._troubled, ()),
            dead=tuple(self._dead),
        )

    def _must_hold(self) -> None:
        if self._closed:
            raise Fenced(
                f"this run of `{self._spec.name}` holds its partitions no more: a commit of it did "
                "not land, or it has ended"
            )


class ConsumerRuns:
    """The consumer runs that are on at this node, by the token of their invocation."""

    def __init__(self) -> None:
        self._known: dict[int, ConsumerRun] = {}

    def open(self, token: int, shift: ConsumerRun) -> None:
        """The run may fetch and commit from now on."""
        self._known[token] = shift

    def end(self, token: int) -> None:
        """It may no more."""
        self._known.pop(token).close()

    def of(self, token: int) -> ConsumerRun:
        """The shift of the run.

        Raises:
            Fenced: It has none, or it is over.
        """
        found = self._known.get(token)
        if found is None:
            raise Fenced(
                "this run consumes nothing by itself; only a `Lag` trigger starts such runs"
            )
        return found
