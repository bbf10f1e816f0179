"""What a pump makes durable: changes in their order, several on their way, none forgotten.

In: `Effects` of what was decided. Out: tasks that end when the change is on the disk, or that have
told that it is not: then the books are `broken`, nothing more may land, and the pump opens them
anew from what the store holds. Light landings (positions and outputs, nothing else) are gathered
while a commit is on its way, because a commit costs the same for one event as for fifty.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from headrace.delivery.commit import change_of
from headrace.delivery.ledger import At, Ledger
from headrace.delivery.positions import Standing, stored
from headrace.keepers.storage.base import Storage
from headrace.model.effects import Change, Delete, Effects, Put
from headrace.model.errors import Conflict, Fenced, Unavailable
from headrace.model.policy import MAX_BATCH_BYTES
from headrace.model.record import Append
from headrace.world.tasks import Tasks

COMMITS_IN_FLIGHT = 4
MAX_GATHERED = 256
"""Units that may have run while a commit is on its way: what a crash at that moment runs again."""

Beside = Callable[[Effects], tuple[Put | Delete, ...]]


class Landing:
    """Owned by one pump; the only writer of its position rows.

    Args:
        function: Whose positions these are.
        rows: The position rows as claimed, by stream and partition.
        width: How many units run at once.
        beside: Rows that must land with the positions these effects bring.
        landed: Is told what was appended, once it is.
        on_trouble: Called when a change did not land, or nobody knows.

    Attributes:
        commits: What is on its way, oldest first.
        broken: A change did not land, or nobody knows.
    """

    def __init__(
        self,
        function: str,
        rows: dict[At, bytes],
        *,
        storage: Storage,
        tasks: Tasks,
        width: int,
        beside: Beside,
        landed: Callable[[Sequence[Append]], None],
        on_trouble: Callable[[], None],
    ) -> None:
        self._function, self._rows = function, rows
        self._storage, self._tasks = storage, tasks
        self._most = COMMITS_IN_FLIGHT * width
        self._beside, self._told_of, self._on_trouble = beside, landed, on_trouble
        self._name = f"commit {function}"
        self._gathering = False
        self.commits: deque[asyncio.Task[None]] = deque()
        self.broken = False

    def open(self, ledger: Ledger) -> None:
        """Begin anew with these books."""
        self._ledger = ledger
        self.broken = self._gathering = False

    # --- on its way -------------------------------------------------------------------------

    async def commit(self, write: Callable[[], Effects]) -> None:
        """Land what `write` writes up, or mark the books as broken: the next step is then to rewind.

        What was gathered is written up before: its positions must not run ahead of what lands here.
        """
        self.write_up()
        await asyncio.wait((self.begin(write()),))

    def begin(self, effects: Effects) -> asyncio.Task[None]:
        """Have `effects` landed behind everything begun before; nothing gathered may be left."""
        assert not self._gathering  # noqa: S101 - its positions would land first, without these rows
        commit = self._tasks.start(self._apply(self._change(effects)), name=self._name)
        self.commits.append(commit)
        return commit

    def begin_gathered(self) -> None:
        """Have landed what the ledger gathered, with what it gathers while a commit is on its way."""
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
            self.begin(self._ledger.gathered())

    async def room(self) -> None:
        """Wait while as much as may be is on its way, or gathered."""
        if len(self.commits) >= self._most or self._ledger.gathered_units >= MAX_GATHERED:
            await asyncio.wait((self.commits[0],))

    async def _land_gathered(self, before: asyncio.Task[None] | None) -> None:
        if before is not None and not before.done():
            await asyncio.wait((before,))
        if not self._gathering:
            return
        self._gathering = False
        try:
            change = self._change(self._ledger.gathered())
        except BaseException:
            self._trouble()
            raise
        await self._apply(change)

    def _change(self, effects: Effects) -> Change:
        if rows := self._beside(effects):
            effects = msgspec.structs.replace(effects, extra=effects.extra + rows)
        change, self._rows = change_of(effects, self._rows)
        return change

    async def _apply(self, change: Change) -> None:
        try:
            await self._storage.apply(change)
            if change.appends:
                self._told_of(change.appends)
        except (Fenced, Conflict, Unavailable):
            # Stale state, an earlier commit that did not land, a new owner, a full disk or an
            # unknown end: the store knows which, and the rewind reads it.
            self._trouble()
        except BaseException:
            self._trouble()
            raise

    def _trouble(self) -> None:
        self.broken = True
        self._on_trouble()

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

    async def found(self) -> dict[str, Standing]:
        """What the store holds, by stream; from here on that is what the next change must find.

        Raises:
            Fenced: Another owner holds a partition.
        """
        standing: dict[str, Standing] = {}
        for stream, partition in self._rows:
            row, known = await stored(self._storage, self._function, stream, partition)
            if known.epoch != self._ledger.epoch_of(stream):
                raise Fenced(f"`{self._function}` lost `{stream}/{partition}` to another owner")
            self._rows[stream, partition] = row
            standing[stream] = known
        return standing
