"""A run that fetches its events: its partitions, its fetched events and its commits.

In: claims of partitions, then a child's requests to fetch and to commit. Out: chunks in order, and one change for each
commit: positions, outputs and state together, fenced by the rows of the claims. It uses the same ledger as a partition
worker. A child can commit only events that it fetched here, and nothing after a commit that failed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping

from msgspec.structs import replace

from headrace.delivery.commit.changes import change_of
from headrace.delivery.commit.publish_checks import PublishChecks
from headrace.delivery.engine import Engine
from headrace.delivery.partition.ledger import Ledger
from headrace.delivery.partition.settle import Verdict, runaway
from headrace.delivery.positions import Claim
from headrace.delivery.unit import Unit
from headrace.model.effects import Effects, Missed
from headrace.model.errors import Fenced, Misuse, Refused
from headrace.model.function import FunctionSpec
from headrace.model.hop_limit import next_hop, runs_away
from headrace.model.outcome import Returned
from headrace.model.policy import DeadLetter
from headrace.model.record import Chunk, Position

MAX_FETCH = 10_000
MAX_UNCOMMITTED = 100_000
"""Events that one run may have fetched and not committed."""


class ConsumerRun:
    """One run's partitions and fetched events. Its child sends one request at a time.

    Attributes:
        partitions: Its partitions.
        token: The version of the state that it writes next; incremented by each commit, as in the child.
        given: Events fetched so far.
        missed: Events that retention deleted before they were fetched, by partition.
    """

    def __init__(
        self,
        spec: FunctionSpec,
        stream: str,
        claims: Mapping[int, Claim],
        *,
        token: int,
        ends: float,
        engine: Engine,
        publish_checks: PublishChecks,
    ) -> None:
        self.partitions = tuple(claims)
        self.token = token
        self.given = 0
        self.missed: list[tuple[int, Missed]] = []
        self._spec = spec
        self._stream = stream
        self._ends = ends
        self._engine = engine
        self._publish_checks = publish_checks
        self._rows = {(stream, partition): claimed.row for partition, claimed in claims.items()}
        stored_positions = {
            (stream, partition): claimed.position for partition, claimed in claims.items()
        }
        self._ledger = Ledger(spec, stored_positions)
        self._turns = deque(claims)
        self._open: list[Chunk] = []
        self._runaways: list[Chunk] = []
        self._busy = asyncio.Lock()
        self._over = self._closed = False

    @property
    def held(self) -> tuple[Position, ...]:
        """Return its partitions, with the next offset of each."""
        stream, expected = self._stream, self._ledger.expected
        return tuple(Position(stream, each, expected((stream, each))) for each in self.partitions)

    def recall(self) -> None:
        """Supply no more events; the run then ends by itself."""
        self._over = True

    def close(self) -> None:
        """Refuse later requests: the run has ended."""
        self._closed = True

    async def fetch(self, events: int) -> tuple[list[Chunk], int]:
        """Return the next events (none: the run should end), and how many were not fetched.

        Raises:
            Fenced: The run is over.
            Misuse: Too much was fetched without a commit.
        """
        async with self._busy:
            self._must_hold()
            left, size = min(max(events, 0), MAX_FETCH), self._spec.batch_bytes
            # The ledger and the commit hold every fetched event until then.
            if sum(chunk.size for chunk in self._open) + left > MAX_UNCOMMITTED:
                raise Misuse(
                    f"more than {MAX_UNCOMMITTED:,} events were fetched without a commit; call "
                    "`consumer.commit()` in between"
                )
            found: list[Chunk] = []
            if not self._over and self._engine.clock.monotonic() < self._ends:
                # Another partition first each time: one with a large backlog would otherwise
                # starve the others.
                self._turns.rotate(-1)
                for partition in self._turns:
                    if left <= 0 or size <= 0:
                        break
                    chunks = await self._read(partition, left, size)
                    left -= sum(chunk.size for chunk in chunks)
                    # The share of the blob that the window covers.
                    size -= sum(len(chunk.body) * chunk.size // chunk.count for chunk in chunks)
                    found += chunks
            self._open += found
            self.given += sum(chunk.size for chunk in found)
            return found, await self._behind()

    async def _read(self, partition: int, events: int, size: int) -> list[Chunk]:
        """Return the next events of one partition, without finished ones and those of an endless chain."""
        at = self._stream, partition
        log, expected = self._engine.log, self._ledger.expected(at)
        chunks = await log.fetch(*at, expected, events=events, size=size)
        if not chunks:
            # An empty read means that retention or compaction has removed the rest.
            self._ledger.skip(at, (await log.extent(*at)).high)
        admitted = self._ledger.admit(at, chunks)
        # Only retention is a loss: compaction removes events that a later one of the key replaces.
        if log.stream(self._stream).cleanup == "delete":
            self.missed += ((partition, each) for each in self._ledger.missed)
        self._ledger.missed.clear()
        self._runaways += (chunk for chunk in admitted if runs_away(chunk.hops))
        return [chunk for chunk in admitted if not runs_away(chunk.hops)]

    async def _behind(self) -> int:
        lag = 0
        for partition in self.partitions:
            at = self._stream, partition
            extent = await self._engine.log.extent(*at)
            lag += self._ledger.read(at).unfinished(extent.low, extent.high)
        return lag

    async def land(self, returned: Returned) -> None:
        """Commit in the middle of the run, after checking what it publishes.

        Raises:
            Fenced, Conflict: As `commit`.
            Refused: It publishes where it may not, or names single events that failed.
        """
        self._must_hold()
        vetted = self._publish_checks(self._spec, returned)
        if (cause := vetted.failure) is not None:
            self._closed = True
            raise Refused(cause.message)
        await self.commit(vetted)

    async def commit(self, returned: Returned) -> None:
        """Commit all fetched events as done, with their effects.

        Raises:
            Fenced: The run is over, or another owner has a partition.
            Conflict: State it relied on has changed.
        """
        async with self._busy:
            self._must_hold()
            # Closed until the commit succeeds: after a failure the ledger no longer matches the
            # store, and another owner may have the partitions.
            self._closed = True
            change, rows = change_of(self._effects(returned), self._rows)
            if change.puts or change.deletes or change.appends or returned.reads:
                await self._engine.committer.commit(change)
            self._rows = rows
            self.token += 1
            self._open.clear()
            self._runaways.clear()
            self._closed = False

    def _effects(self, returned: Returned) -> Effects:
        # Hops and origin come from the host: a child could otherwise hide an endless chain.
        hops, origin = next_hop(self._open)
        appends = tuple(replace(append, hops=hops, origin=origin) for append in returned.appends)
        fetched, endless = tuple(self._open), tuple(self._runaways)
        verdict = Verdict(
            finished=fetched, given_up=runaway(Unit(endless)).given_up if endless else (), kept=True
        )
        effects = self._ledger.landed(
            Unit(fetched + endless),
            verdict,
            kept=replace(returned, appends=appends),
            token=self.token,
            on_failure=DeadLetter(),
            now=self._engine.clock.now(),
        )
        assert effects is not None  # noqa: S101 - something was kept, if only positions
        return effects

    def _must_hold(self) -> None:
        if self._closed:
            raise Fenced(
                f"this run of `{self._spec.name}` holds its partitions no more: a commit of it did "
                "not land, or it has ended"
            )


class ConsumerRuns:
    """The consumer runs of this node, by the token of their invocation."""

    def __init__(self) -> None:
        self._known: dict[int, ConsumerRun] = {}

    def open(self, token: int, consumer: ConsumerRun) -> None:
        """Let the run fetch and commit from now on."""
        self._known[token] = consumer

    def end(self, token: int) -> None:
        """Refuse the run's requests from now on."""
        self._known.pop(token).close()

    async def fetch(self, token: int, events: int) -> tuple[list[Chunk], int]:
        """Return the next events of the run (none: it should end), and how many were not fetched.

        Raises:
            Fenced: It holds no partitions (any more).
        """
        return await self._of(token).fetch(events)

    async def land(self, token: int, returned: Returned) -> None:
        """Commit the run's fetched events and effects since the last commit.

        Raises:
            Fenced: It holds no partitions (any more).
            Conflict: State it relied on has changed.
        """
        await self._of(token).land(returned)

    def _of(self, token: int) -> ConsumerRun:
        """Return the consumer run by this token.

        Raises:
            Fenced: It has none, or it is over.
        """
        found = self._known.get(token)
        if found is None:
            raise Fenced(
                "this run consumes nothing by itself; only a `Lag` trigger starts such runs"
            )
        return found
