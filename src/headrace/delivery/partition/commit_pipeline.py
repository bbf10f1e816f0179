"""What a partition worker makes durable: changes in their order, several on their way, none forgotten.

In: `Effects` of what was decided. Out: tasks that end when the change is on the disk, or that have
told that it is not: then the books are `broken`, nothing more may land, and the partition worker opens them
anew from what the store holds. Light landings (positions and outputs, nothing else) are gathered
while a commit is on its way, because a commit costs the same for one event as for fifty.

Where order is per key, a change that relied on stale state costs its own unit only: the unit goes
back to be run again, and the changes handed over behind it, which the store has turned down because
they build on its position row, are handed over once more without its events (ADR 0025).
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
CALM = 8
"""Changes with state that land before one more unit at a time is tried, after stale state was met."""
MAX_GATHERED = 256
"""Units that may have run while a commit is on its way: what a crash at that moment runs again."""


class _Commit:
    """One change on its way; owned by the landing.

    Attributes:
        effects: What it brings.
        finished: Events to tell of once it has landed.
        unit: What runs again by itself where the change relied on stale state; None where the
            books are then opened anew.
        change: As handed to the store.
        rows: The position rows as they stand once it has landed.
        waits: Whether it is to be handed over (again) once all that is with the store has ended.
        is_over: Whether it has landed, or nothing may land any more.
    """

    __slots__ = ("_ended", "change", "effects", "finished", "is_over", "rows", "unit", "waits")

    def __init__(self, effects: Effects, finished: tuple[Chunk, ...], unit: Unit | None) -> None:
        self.effects = effects
        self.finished = finished
        self.unit = unit
        self.change = Change()
        self.rows: dict[At, bytes] = {}
        self.waits = self.is_over = False
        # Made where somebody waits for it, which is only where it is handed over a second time.
        self._ended: asyncio.Future[None] | None = None

    def end(self) -> None:
        """Nothing more comes of it."""
        self.waits = False
        self.is_over = True
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    def fail(self, error: BaseException) -> None:
        """Whoever waits for its end is told what went wrong."""
        if not self.is_over:
            self.is_over = True
            ended = self._end_to_be()
            # Cancelled together with the task that waited for it, as where the host dies.
            if not ended.done():
                ended.set_exception(error)

    async def until_over(self) -> None:
        """Return once it is over, or raise what it failed with."""
        if not self.is_over or self._ended is not None:
            await self._end_to_be()

    def _end_to_be(self) -> asyncio.Future[None]:
        if self._ended is None:
            self._ended = asyncio.get_running_loop().create_future()
        return self._ended


class CommitPipeline:
    """Owned by one partition worker; the only writer of its position rows.

    It calls nobody who calls it: what its worker is to do comes as a wake-up.

    Args:
        claimed: The partition, as claimed.
        engine: Its storage and tasks.
        gate: Has rows of flow control that must land with the positions.
        wakeup: Wakes the worker where a change did not land, a unit runs again or a key may go on.

    Attributes:
        commits: What is on its way, oldest first.
        broken: A change did not land, or nobody knows.
        is_wary: Whether stale state was met of late, so that fewer units run at once.
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
        self.is_wary = False
        self._calm = 0
        self._name = f"commit {claimed.spec.name}"
        self._gathering = False
        self._gathered: list[Chunk] = []
        # Written up and not landed, in the order of their position rows.
        self._written: deque[_Commit] = deque()
        self._handed = 0
        self._mending = False
        self.commits: deque[asyncio.Task[None]] = deque()
        self.broken = False

    def open(self, ledger: Ledger, intake: Intake) -> None:
        """Begin again with this ledger; what it finishes is released in the intake once it has landed."""
        self._ledger = ledger
        self._intake = intake
        self._landed_rows = self._rows
        self._written.clear()
        self._gathered.clear()
        self.broken = self._gathering = self._mending = False

    # --- on its way -------------------------------------------------------------------------

    def unfinished(self) -> Iterator[Chunk]:
        """The events to tell of once what is on its way, or gathered, has landed."""
        for commit in self._written:
            yield from commit.finished
        yield from self._gathered

    async def commit(self, write: Callable[[], Effects]) -> None:
        """Land what `write` writes up, or mark the books as broken: the next step is then to rewind.

        What was gathered is written up before: its positions must not run ahead of what lands here.
        """
        self.write_up()
        await asyncio.wait((self.begin(write()),))

    def begin(
        self, effects: Effects, finished: Iterable[Chunk] = (), unit: Unit | None = None
    ) -> asyncio.Task[None]:
        """Have `effects` landed behind everything begun before; nothing gathered may be left.

        Args:
            effects: What is to land.
            finished: The events to tell of once it has.
            unit: What is taken back, to run again, where the effects rely on stale state; None
                where the books are then opened anew.
        """
        assert not self._gathering  # noqa: S101 - its positions would land first, without these rows
        commit = self._write(effects, tuple(finished), unit)
        # Asked now: while it waits, others hand it over.
        seen = commit.until_over() if commit.waits else self._see_through(commit)
        task = self._tasks.start(seen, name=self._name)
        self.commits.append(task)
        return task

    def begin_gathered(self, finished: Iterable[Chunk] = ()) -> None:
        """Have landed what the ledger gathered, with what it gathers while a commit is on its way."""
        self._gathered.extend(finished)
        if not self._gathering:
            self._gathering = True
            before = self.commits[-1] if self.commits else None
            self.commits.append(self._tasks.start(self._land_gathered(before), name=self._name))
        elif self._ledger.gathered_bytes > MAX_BATCH_BYTES:
            self.write_up()

    def write_up(self) -> None:
        """Let nothing that is begun now go before what was gathered."""
        if self._gathering:
            self._gathering = False
            self.begin(self._ledger.gathered(), self._taken())

    async def room(self) -> None:
        """Wait while as much as may be is on its way, or gathered."""
        if len(self.commits) >= self._most or self._ledger.gathered_units >= MAX_GATHERED:
            await asyncio.wait((self.commits[0],))

    def is_crowded(self, running: int) -> bool:
        """Whether one unit more would likely meet stale state: so many run or are on their way.

        Where units share keys of state, one of those that run at once lands. So there are half as
        many after each that did not, and one more after some that did.
        """
        return self.is_wary and running + len(self.commits) >= self._at_once

    async def _land_gathered(self, before: asyncio.Task[None] | None) -> None:
        if before is not None and not before.done():
            await asyncio.wait((before,))
        if not self._gathering:
            return
        self._gathering = False
        try:
            commit = self._write(self._ledger.gathered(), self._taken(), None)
        except BaseException:
            self.mistrust()
            raise
        await (commit.until_over() if commit.waits else self._see_through(commit))

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
        if self._mending:
            commit.waits = True
        else:
            self._chain(commit)
        self._written.append(commit)
        return commit

    def _chain(self, commit: _Commit) -> None:
        """Let it find the position rows as the change before it leaves them; it is then handed over."""
        self._handed += 1
        commit.change, self._rows = change_of(commit.effects, self._rows)
        commit.rows = self._rows

    async def _see_through(self, commit: _Commit) -> None:
        """Hand it over; return once it has landed, or nothing may land any more."""
        await self._hand_over(commit)
        if not commit.is_over:
            await commit.until_over()

    async def _hand_over_again(self, commit: _Commit) -> None:
        try:
            await self._hand_over(commit)
        except BaseException as error:
            commit.fail(error)
            if not isinstance(error, Exception):
                raise

    async def _hand_over(self, commit: _Commit) -> None:
        landed = False
        try:
            await self._committer.commit(commit.change)
            landed = True
        except Conflict:
            # Its fence held, so all before it has landed.
            if self.broken or commit.unit is None or not self._take_back(commit, commit.unit):
                self.mistrust()
        except Fenced:
            # While mending, it stands on the row of a change that was turned down.
            if not self._mending:
                self.mistrust()
        except Unavailable:
            # An earlier commit that did not land, a full disk or an unknown end: the store knows
            # which, and the rewind reads it.
            self.mistrust()
        except BaseException:
            self.mistrust()
            raise
        finally:
            self._handed -= 1
        if landed:
            self._landed(commit)
        elif self.broken:
            commit.end()
        else:
            commit.waits = True
        if self._mending and not self._handed:
            self._mend()

    def _take_back(self, commit: _Commit, unit: Unit) -> bool:
        """Let the unit run again, and what was written up since say nothing of its events.

        Whatever else its change brings (events laid aside, rows of flow control) still lands.
        """
        if not self._ledger.take_back(unit):
            return False
        self._mending = True
        self._at_once = max(min(self._at_once, len(self.commits)) // 2, 1)
        self.is_wary = True
        self._calm = 0
        commit.unit = None
        commit.finished = ()
        commit.effects = msgspec.structs.replace(commit.effects, appends=(), reads=(), writes=())
        for later in self._written:
            later.effects = without(later.effects, unit.chunks)
        self._wakeup.wake()
        return True

    def _mend(self) -> None:
        """Hand over again, in order, what was turned down with the change that relied on stale state."""
        self._mending = False
        self._rows = self._landed_rows
        for commit in self._written:
            assert commit.waits  # noqa: S101 - nothing is handed over while mending
            commit.waits = False
            self._chain(commit)
            self._tasks.start(self._hand_over_again(commit), name=self._name)

    def _landed(self, commit: _Commit) -> None:
        if commit is not self._written[0]:
            # It has overtaken one that leaves the position row as it was, in a store that keeps no
            # order: what that one says of the positions is no longer so.
            self.mistrust()
        self._written.remove(commit)
        commit.end()
        self._landed_rows = commit.rows
        if self.is_wary and commit.effects.reads:
            self._calm += 1
            if self._calm >= CALM:
                self._at_once += 1
                self._calm = 0
                self.is_wary = self._at_once < self._all_at_once
        # The next events of these keys may go: what came before them is kept.
        if commit.finished and self._intake.release(commit.finished):
            self._wakeup.wake()

    def mistrust(self) -> None:
        """Let nothing more land: the books are to be opened anew from what the store holds."""
        self.broken = True
        self._mending = False
        for commit in self._written:
            if commit.waits:
                commit.end()
        self._wakeup.wake()

    # --- and after --------------------------------------------------------------------------

    @property
    def wants_attention(self) -> bool:
        """Whether a commit has ended that nobody has looked at, or has not landed."""
        return self.broken or self.has_ended

    @property
    def has_ended(self) -> bool:
        """Whether a commit has ended that nobody has looked at."""
        return bool(self.commits and self.commits[0].done())

    def forget_landed(self) -> None:
        """Let go of what has ended; what went wrong with it beyond reckoning comes out here."""
        while self.commits and self.commits[0].done():
            self.commits.popleft().result()

    async def drain(self) -> None:
        """Wait until everything on its way has ended."""
        while self.commits:
            await asyncio.wait(tuple(self.commits))
            self.forget_landed()

    async def found(self) -> dict[At, StoredPosition]:
        """What the store holds; from here on that is what the next change must find.

        Raises:
            Fenced: Another owner holds a partition.
        """
        standing: dict[At, StoredPosition] = {}
        for stream, partition in self._rows:
            row, known = await stored(self._committer.storage, self._function, stream, partition)
            if known.epoch != self._ledger.epoch_of((stream, partition)):
                raise Fenced(f"`{self._function}` lost `{stream}/{partition}` to another owner")
            self._rows[stream, partition] = row
            standing[stream, partition] = known
        return standing
