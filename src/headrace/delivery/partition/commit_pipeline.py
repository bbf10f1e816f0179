"""Commit pipeline of a partition worker: changes in order, several in flight.

In: `Effects` of verdicts. Out: tasks that end when the change is durable or has failed. After a failure the pipeline is
`broken`: nothing more is committed, and the partition worker opens the partition again from the store. Light commits
(only positions and outputs) are gathered while another commit is in flight, because a commit of one event costs as much
as one of fifty.

If order is per key, a change that relied on stale state repeats only its own unit. The store has
refused the later changes too, since they build on its position row; these are applied again without
the unit's events (ADR 0025).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator

import msgspec

from headrace.delivery.commit.changes import change_of
from headrace.delivery.engine import Engine
from headrace.delivery.intake.base import Intake
from headrace.delivery.partition.claimed_partition import ClaimedPartition
from headrace.delivery.partition.flow_gate import FlowGate
from headrace.delivery.partition.ledger import At, Ledger, without
from headrace.delivery.partition.wakeup import Wakeup
from headrace.delivery.positions import StoredPosition, stored
from headrace.delivery.unit import Unit
from headrace.model.effects import Change, Effects
from headrace.model.errors import Conflict, Fenced, Unavailable
from headrace.model.policy import MAX_BATCH_BYTES
from headrace.model.record import Chunk

COMMITS_IN_FLIGHT = 4
CLEAN_COMMITS = 8
"""Commits with state that must succeed before one more concurrent unit is allowed, after a conflict."""
MAX_GATHERED = 256
"""Units that may be gathered while a commit is in flight: a crash at that moment repeats them."""


class _Commit:
    """One change in flight; owned by the pipeline.

    Attributes:
        effects: Its effects.
        finished: Events to release after the commit.
        unit: The unit that runs again if the change relied on stale state; None if the partition is then opened again.
        change: The change as passed to the store.
        rows: The position rows after the commit.
        waits: Whether it must be applied (again) once all changes in the store have ended.
        is_over: Whether it was committed, or nothing may be committed any more.
    """

    __slots__ = ("_ended", "change", "effects", "finished", "is_over", "rows", "unit", "waits")

    def __init__(self, effects: Effects, finished: tuple[Chunk, ...], unit: Unit | None) -> None:
        self.effects = effects
        self.finished = finished
        self.unit = unit
        self.change = Change()
        self.rows: dict[At, bytes] = {}
        self.waits = self.is_over = False
        # Created only if a task waits for it, which happens only for a change that is applied a
        # second time.
        self._ended: asyncio.Future[None] | None = None

    def end(self) -> None:
        """Mark it as over."""
        self.waits = False
        self.is_over = True
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    def fail(self, error: BaseException) -> None:
        """Mark it as over, with an error for the tasks that wait."""
        if not self.is_over:
            self.is_over = True
            ended = self._ended_future()
            # The future may be cancelled together with the task that waits, when the node stops.
            if not ended.done():
                ended.set_exception(error)

    async def until_over(self) -> None:
        """Return once it is over, or raise its error."""
        if not self.is_over or self._ended is not None:
            await self._ended_future()

    def _ended_future(self) -> asyncio.Future[None]:
        if self._ended is None:
            self._ended = asyncio.get_running_loop().create_future()
        return self._ended


class CommitPipeline:
    """Owned by one partition worker; the only writer of its position rows.

    It does not call its worker: it only wakes it.

    Args:
        claimed: The claimed partition.
        engine: Its storage and tasks.
        gate: Supplies rows of flow control that must be committed with the positions.
        wakeup: Wakes the worker after a failed change, a repeated unit or a released key.

    Attributes:
        commits: The commits in flight, oldest first.
        broken: Whether a change failed, or its result is unknown.
        is_contended: Whether there were conflicts recently, so that fewer units run at once.
    """

    def __init__(
        self,
        claimed: ClaimedPartition,
        *,
        engine: Engine,
        gate: FlowGate,
        wakeup: Wakeup,
    ) -> None:
        self._function = claimed.spec.name
        self._rows = {
            (name, claimed.partition): claim.row for name, claim in claimed.claims.items()
        }
        self._committer = engine.committer
        self._tasks = engine.tasks
        self._gate = gate
        self._merges = claimed.merges
        self._wakeup = wakeup
        self._most = COMMITS_IN_FLIGHT * claimed.width
        self._at_once = self._all_at_once = self._most + claimed.width
        self.is_contended = False
        self._clean_commits = 0
        self._name = f"commit {claimed.spec.name}"
        self._gathering = False
        self._gathered: list[Chunk] = []
        # Changes that are created and not committed, in the order of their position rows.
        self._written: deque[_Commit] = deque()
        self._in_flight = 0
        self._is_resending = False
        self.commits: deque[asyncio.Task[None]] = deque()
        self.broken = False

    def open(self, ledger: Ledger, intake: Intake) -> None:
        """Start again with this ledger; events are released in the intake after their commit."""
        self._ledger = ledger
        self._intake = intake
        self._landed_rows = self._rows
        self._written.clear()
        self._gathered.clear()
        self.broken = self._gathering = self._is_resending = False

    # --- in flight -------------------------------------------------------------------------

    def unfinished(self) -> Iterator[Chunk]:
        """Yield the events to release after the commits in flight and the gathered ones."""
        for commit in self._written:
            yield from commit.finished
        yield from self._gathered

    async def commit(self, write: Callable[[], Effects]) -> None:
        """Commit the effects that `write` returns; after a failure the pipeline is broken and must rewind.

        Gathered effects are committed first: their positions must not be ahead of this change.
        """
        self.flush_gathered()
        await asyncio.wait((self.begin(write()),))

    def begin(
        self, effects: Effects, finished: Iterable[Chunk] = (), unit: Unit | None = None
    ) -> asyncio.Task[None]:
        """Start a commit of `effects` after all earlier ones; nothing may be gathered at this time.

        Args:
            effects: The effects to commit.
            finished: The events to release afterwards.
            unit: The unit to run again if the effects rely on stale state; None if the partition is then opened again.
        """
        assert not self._gathering  # noqa: S101 - its positions would land first, without these rows
        commit = self._write(effects, tuple(finished), unit)
        # Decided now: a waiting change is applied by `_resend`, not by this task.
        seen = commit.until_over() if commit.waits else self._commit_and_wait(commit)
        task = self._tasks.start(seen, name=self._name)
        self.commits.append(task)
        return task

    def begin_gathered(self, finished: Iterable[Chunk] = ()) -> None:
        """Start a commit of the gathered effects, and of those gathered until the current commit ends."""
        self._gathered.extend(finished)
        if not self._gathering:
            self._gathering = True
            before = self.commits[-1] if self.commits else None
            self.commits.append(self._tasks.start(self._land_gathered(before), name=self._name))
        # The outputs of one change must stay within the limit of the log.
        elif self._ledger.gathered_bytes > MAX_BATCH_BYTES:
            self.flush_gathered()

    def flush_gathered(self) -> None:
        """Start the commit of the gathered effects now, so that later commits follow it."""
        if self._gathering:
            self._gathering = False
            self.begin(self._ledger.gathered(), self._taken())

    async def wait_for_capacity(self) -> None:
        """Wait while the maximum is in flight or gathered."""
        # A bound on memory, and on what a crash repeats.
        if len(self.commits) >= self._most or self._ledger.gathered_units >= MAX_GATHERED:
            # `wait` does not raise: the result is collected by `forget_landed`.
            await asyncio.wait((self.commits[0],))

    def is_crowded(self, running: int) -> bool:
        """Return whether one more unit would probably conflict with a running or committing one.

        Of units that share keys of state, only one of those that run at once can commit. So the
        limit is halved after each conflict, and raised by one after a number of successful commits.
        """
        return self.is_contended and running + len(self.commits) >= self._at_once

    async def _land_gathered(self, before: asyncio.Task[None] | None) -> None:
        if before is not None and not before.done():
            await asyncio.wait((before,))
        if not self._gathering:
            return
        self._gathering = False
        try:
            commit = self._write(self._ledger.gathered(), self._taken(), None)
        # A cancelled commit may still be applied, so its result is unknown.
        except BaseException:
            self.mark_broken()
            raise
        await (commit.until_over() if commit.waits else self._commit_and_wait(commit))

    def _taken(self) -> tuple[Chunk, ...]:
        taken = tuple(self._gathered)
        self._gathered.clear()
        return taken

    def _write(self, effects: Effects, finished: tuple[Chunk, ...], unit: Unit | None) -> _Commit:
        rows = self._gate.rows(finished)
        if self._merges is not None:
            rows += self._merges.rows(effects.progress)
        if rows:
            effects = msgspec.structs.replace(effects, extra=effects.extra + rows)
        commit = _Commit(effects, finished, unit)
        if self._is_resending:
            commit.waits = True
        else:
            self._chain(commit)
        self._written.append(commit)
        return commit

    def _chain(self, commit: _Commit) -> None:
        """Build the change on the position rows that the change before it writes."""
        self._in_flight += 1
        commit.change, self._rows = change_of(commit.effects, self._rows)
        commit.rows = self._rows

    async def _commit_and_wait(self, commit: _Commit) -> None:
        """Apply the change; return once it was committed, or nothing may be committed any more."""
        await self._apply(commit)
        if not commit.is_over:
            await commit.until_over()

    async def _apply_again(self, commit: _Commit) -> None:
        try:
            await self._apply(commit)
        except BaseException as error:
            commit.fail(error)
            if not isinstance(error, Exception):
                raise

    async def _apply(self, commit: _Commit) -> None:
        landed = False
        try:
            await self._committer.commit(commit.change)
            landed = True
        except Conflict:
            # Fences are checked first: this one held, so all earlier changes were applied.
            if self.broken or commit.unit is None or not self._take_back(commit, commit.unit):
                self.mark_broken()
        except Fenced:
            # During a resend this is expected: the change builds on the row of a refused one, and
            # is applied again.
            if not self._is_resending:
                self.mark_broken()
        except Unavailable:
            # An earlier commit failed, the disk is full or the result is unknown: the rewind reads
            # from the store which events were committed.
            self.mark_broken()
        except BaseException:
            self.mark_broken()
            raise
        finally:
            self._in_flight -= 1
        if landed:
            self._landed(commit)
        elif self.broken:
            commit.end()
        else:
            commit.waits = True
        if self._is_resending and not self._in_flight:
            self._resend()

    def _take_back(self, commit: _Commit, unit: Unit) -> bool:
        """Let the unit run again, and remove its events from later changes.

        The rest of its change (events laid aside, rows of flow control) is still committed.
        """
        if not self._ledger.take_back(unit):
            return False
        self._is_resending = True
        self._at_once = max(min(self._at_once, len(self.commits)) // 2, 1)
        self.is_contended = True
        self._clean_commits = 0
        # Only once: a second conflict of the same change is not explained by this unit.
        commit.unit = None
        commit.finished = ()
        commit.effects = msgspec.structs.replace(commit.effects, appends=(), reads=(), writes=())
        for later in self._written:
            later.effects = without(later.effects, unit.chunks)
        self._wakeup.wake()
        return True

    def _resend(self) -> None:
        """Apply the refused changes again, in order, without the unit's events."""
        self._is_resending = False
        self._rows = self._landed_rows
        for commit in self._written:
            assert commit.waits  # noqa: S101 - nothing is handed over while mending
            commit.waits = False
            self._chain(commit)
            self._tasks.start(self._apply_again(commit), name=self._name)

    def _landed(self, commit: _Commit) -> None:
        if commit is not self._written[0]:
            # A store without an order may apply a change early, if the one before it leaves the
            # position row unchanged. The earlier change's positions are then outdated.
            self.mark_broken()
        self._written.remove(commit)
        commit.end()
        # The base of a resend: the rows that are certainly in the store.
        self._landed_rows = commit.rows
        if self.is_contended and commit.effects.reads:
            self._clean_commits += 1
            if self._clean_commits >= CLEAN_COMMITS:
                self._at_once += 1
                self._clean_commits = 0
                self.is_contended = self._at_once < self._all_at_once
        # Only now may later events of these keys run: their earlier effects are durable.
        if commit.finished and self._intake.release(commit.finished):
            self._wakeup.wake()

    def mark_broken(self) -> None:
        """Commit nothing more: the partition must be opened again from the store."""
        self.broken = True
        self._is_resending = False
        for commit in self._written:
            if commit.waits:
                commit.end()
        self._wakeup.wake()

    # --- results --------------------------------------------------------------------------

    @property
    def wants_attention(self) -> bool:
        """Return whether a commit has ended that was not collected, or has failed."""
        return self.broken or self.has_ended

    @property
    def has_ended(self) -> bool:
        """Return whether a commit has ended that was not collected."""
        return bool(self.commits and self.commits[0].done())

    def forget_landed(self) -> None:
        """Collect ended commits; an unexpected error of one is raised here."""
        while self.commits and self.commits[0].done():
            self.commits.popleft().result()

    async def drain(self) -> None:
        """Wait until every commit in flight has ended."""
        while self.commits:
            await asyncio.wait(tuple(self.commits))
            self.forget_landed()

    async def found(self) -> dict[At, StoredPosition]:
        """Read the positions from the store; the next change builds on them.

        Raises:
            Fenced: Another owner holds a partition.
        """
        stored_positions: dict[At, StoredPosition] = {}
        for stream, partition in self._rows:
            row, known = await stored(self._committer.storage, self._function, stream, partition)
            if known.epoch != self._ledger.epoch_of((stream, partition)):
                raise Fenced(f"`{self._function}` lost `{stream}/{partition}` to another owner")
            self._rows[stream, partition] = row
            stored_positions[stream, partition] = known
        return stored_positions
