"""Replays: events of a stream between two times, matched against some of its rules once more.

In: a stream, two times, rules. Out: appends to the rules' streams, each together with how far the
replay has come, so that a host that dies continues from there and nothing comes twice. Events carry
the replay's name in the header `headrace-replay`. Patterns and transformers are today's.

    running -> done          (a host that starts takes up what is running)
            -> cancelled
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgspec

from headrace.bus.bus import Bus
from headrace.delivery.commit.committer import Committer
from headrace.environment.clock import Clock
from headrace.environment.failpoints import hit
from headrace.environment.randomness import Entropy
from headrace.environment.restart_backoff import Backoff
from headrace.environment.supervised_task import TaskFailure
from headrace.environment.tasks import Tasks
from headrace.model.effects import Change, Check, Put, Space
from headrace.model.errors import Conflict, Fenced, Misuse, Unavailable, Unknown
from headrace.model.record import Append, Chunk
from headrace.storage.kv.keys import after, pack
from headrace.storage.log.base import Broker

# Each reads the log as fast as it can, on the loop that serves requests.
MAX_RUNNING = 10
MAX_REPLAYS = 1_000
STEP_EVENTS, STEP_BYTES = 1_000, 4 << 20
PAUSE_S = 0.5


class ReplayRow(msgspec.Struct, frozen=True):
    """A replay, as stored.

    Attributes:
        name: Unique on the platform.
        stream: What is read.
        begin: From this time of appending (µs since the epoch) ...
        end: ... up to, and without, this one.
        rules: The rules that are matched; empty means all that watch the stream.
        state: `running`, `done` or `cancelled`.
        next: By partition, the offset to go on from.
        until: By partition, the offset to stop before.
        read: Events read so far.
        sent: Events appended so far.
    """

    name: str
    stream: str
    begin: int
    end: int
    rules: tuple[str, ...]
    state: str
    next: tuple[int, ...]
    until: tuple[int, ...]
    read: int = 0
    sent: int = 0


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(ReplayRow).decode


class Replays:
    """Starts, lists and cancels. One per node; several nodes share the work without doubling it."""

    def __init__(
        self,
        bus: Bus,
        *,
        committer: Committer,
        broker: Broker,
        clock: Clock,
        entropy: Entropy,
        on_failure: Callable[[str, BaseException], None],
    ) -> None:
        self._bus = bus
        self._committer = committer
        self._storage = committer.storage
        self._broker = broker
        self._clock = clock
        self._entropy = entropy
        self._tasks = Tasks(on_failure)

    async def start(
        self, name: str, stream: str, *, begin: int, end: int, rules: list[str]
    ) -> ReplayRow:
        """Begin a replay; it goes on by itself.

        Raises:
            Unknown: There is no such stream or rule.
            Misuse: The name is taken, the times are the wrong way round, or too many are running.
        """
        spec = self._broker.stream(stream)
        if not name or len(name) > 128 or "\0" in name:
            raise Misuse(f"`{name[:128]}` cannot name a replay; use 1 to 128 characters")
        if begin >= end:
            raise Misuse(f"replay `{name}` ends before it begins; swap the times")
        if not self._bus.chosen(stream, rules):
            raise Unknown(f"no rule watches `{stream}`; there is nothing to replay it to")
        there = await self.list()
        if sum(row.state == "running" for row in there) >= MAX_RUNNING or len(there) >= MAX_REPLAYS:
            raise Misuse(f"{MAX_RUNNING} replays are running at most; wait for one, or cancel it")
        lows, highs = [], []
        for partition in range(spec.partitions):
            low = await self._broker.offset_at(stream, partition, begin)
            lows.append(low)
            # The end is fixed now: what is appended later is not part of the replay.
            highs.append(max(low, await self._broker.offset_at(stream, partition, end)))
        row = ReplayRow(
            name, stream, begin, end, tuple(rules), "running", tuple(lows), tuple(highs)
        )
        key = _key(name)
        try:
            await self._committer.commit(
                Change(
                    # Names are used once: the header of events that were sent must mean one
                    # replay.
                    checks=(Check(Space.META, key, None),),
                    puts=(Put(Space.META, key, _encode(row)),),
                )
            )
        except Conflict as error:
            raise Misuse(
                f"there was a replay `{name}` before; give this one another name"
            ) from error
        except Unavailable:
            # It may be there all the same: then it goes on.
            self._run(name)
            raise
        self._run(name)
        return row

    async def resume(self) -> None:
        """Take up what was running when a host died."""
        # Every node takes up all of them: the check of the row lets one step of one node land.
        for row in await self.list():
            if row.state == "running":
                self._run(row.name)

    async def list(self) -> list[ReplayRow]:
        """Every replay, by name."""
        low = pack("replay")
        rows = await self._storage.scan(Space.META, low, after(low), limit=MAX_REPLAYS)
        return [_decode(row) for _, row in rows]

    async def get(self, name: str) -> ReplayRow:
        """Return a replay with its progress.

        Raises:
            Unknown: There is none of that name.
        """
        return (await self._load(name))[0]

    async def cancel(self, name: str) -> ReplayRow:
        """Stop a replay; what it has appended stays.

        Raises:
            Unknown: There is none of that name.
        """
        while True:
            row, stored = await self._load(name)
            if row.state != "running":
                return row
            row = msgspec.structs.replace(row, state="cancelled")
            try:
                await self._committer.commit(_change(row, stored, ()))
            except Conflict:
                continue
            return row

    def troubles(self) -> dict[str, TaskFailure]:
        """Errors of replays that do not progress, by their tasks' names."""
        return self._tasks.troubles()

    async def close(self) -> None:
        """Stop between two steps."""
        await self._tasks.close()

    # --- running ----------------------------------------------------------------------------

    def _run(self, name: str) -> None:
        self._tasks.supervise(
            partial(self._follow, name),
            name=f"replay {name}",
            backoff=Backoff(self._clock, self._entropy),
        )

    async def _follow(self, name: str) -> None:
        """Step until there is nothing left, however often the store or the log is away."""
        while True:
            try:
                if (found := await self._there(name)) is None or found[0].state != "running":
                    return
                await self._step(*found)
            except Unknown:
                # Its stream or one of its rules is gone, and with it the reason for the replay.
                await self.cancel(name)
                return
            except (Conflict, Fenced, Unavailable):
                # Another node made this step, or the replay was cancelled: look again.
                # Random, so that nodes which lost a step to each other do not collide again.
                await self._clock.sleep(self._entropy.uniform(PAUSE_S / 2, PAUSE_S))

    async def _step(self, row: ReplayRow, stored: bytes) -> None:
        """Read on in the first partition that is not done, and append what its rules make of it."""
        left = [place for place, low in enumerate(row.next) if low < row.until[place]]
        # A separate change: a step does not know whether it is the last of all partitions.
        if not left:
            done = msgspec.structs.replace(row, state="done")
            await self._committer.commit(_change(done, stored, ()))
            return
        # One after another: order is kept within a partition, and progress stays readable.
        partition = left[0]
        low, high = row.next[partition], row.until[partition]
        found = await self._broker.fetch(
            row.stream, partition, low, events=STEP_EVENTS, size=STEP_BYTES
        )
        chunks = _below(found, high)
        # Nothing there: retention or compaction has removed the rest.
        reached = chunks[-1].end if chunks else high
        router = self._bus.router(row.stream, list(row.rules))
        appends: tuple[Append, ...] = ()
        for chunk in chunks:
            origin = chunk.origin or f"{chunk.stream}/{chunk.partition}/{chunk.start}"
            appends += router.appends([chunk], hops=chunk.hops + 1, origin=origin, replay=row.name)
        offsets = (*row.next[:partition], reached, *row.next[partition + 1 :])
        further = msgspec.structs.replace(
            row,
            next=offsets,
            read=row.read + sum(chunk.size for chunk in chunks),
            sent=row.sent + sum(append.count for append in appends),
        )
        hit("feed:before-append")
        # Appends and progress in one change: a crash leaves both or neither.
        await self._committer.commit(_change(further, stored, appends))
        hit("feed:after-append")

    async def _load(self, name: str) -> tuple[ReplayRow, bytes]:
        found = await self._there(name)
        if found is None:
            raise Unknown(
                f"there is no replay `{name}`; `headrace bus replays` shows what there is"
            )
        return found

    async def _there(self, name: str) -> tuple[ReplayRow, bytes] | None:
        stored = await self._storage.get(Space.META, _key(name))
        return None if stored is None else (_decode(stored), stored)


def _below(chunks: list[Chunk], high: int) -> list[Chunk]:
    """The chunks without what stands at `high` or above."""
    cut = [chunk.window(chunk.low, chunk.low + chunk.below(high)) for chunk in chunks]
    return [chunk for chunk in cut if chunk.size]


def _change(row: ReplayRow, stored: bytes, appends: tuple[Append, ...]) -> Change:
    key = _key(row.name)
    checks = (Check(Space.META, key, stored),)
    return Change(checks=checks, puts=(Put(Space.META, key, _encode(row)),), appends=appends)


def _key(name: str) -> bytes:
    return pack("replay", name)
