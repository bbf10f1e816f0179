"""The outbox of a remote log: each append is in the log once, in order, after any crash."""

from __future__ import annotations

import asyncio

import pytest

from headrace.environment.clock import SystemClock
from headrace.model.effects import Change, Put, Space
from headrace.model.errors import Fenced, Overloaded, TooLarge, Unavailable
from headrace.model.event import Event
from headrace.model.function import StreamSpec
from headrace.model.record import Append, decode_events, encode_events
from headrace.storage import outbox
from headrace.storage.kv.memory import MemoryStorage
from headrace.storage.log.remote_memory import RemoteMemoryLog, RemoteStreams
from headrace.storage.outbox import LogOutbox

CLOCK = SystemClock()


class Site:
    """A store and a remote log, and the nodes that open and close them."""

    def __init__(self) -> None:
        self.storage = MemoryStorage(CLOCK)
        self.moments = self.lost = 0
        self.log = RemoteMemoryLog(RemoteStreams(), clock=CLOCK, faults=self.fault)

    def fault(self, _moment: str) -> None:
        """The connection is lost at the moment that was named by its number."""
        self.moments += 1
        if self.moments == self.lost:
            raise Unavailable("the connection was lost")

    async def node(self) -> Site.Node:
        """One more opening of the outbox."""
        store = self.storage.connect()
        opened = await LogOutbox.open(store, self.log, clock=CLOCK)
        store.attach(opened)
        return Site.Node(store, opened)

    async def texts(self) -> list[str]:
        """The values in the log."""
        chunks = await self.log.fetch("s", 0, 0, events=10_000, size=1 << 30)
        return [event.value.decode() for each in chunks for event in decode_events(each.body)]

    class Node:
        """One opening, and its commits to the store."""

        def __init__(self, store: MemoryStorage, opened: LogOutbox) -> None:
            self.store = store
            self.outbox = opened

        async def append(self, *texts: str) -> None:
            """One append for each, all in one change."""
            made = [Append("s", 0, 1, encode_events([Event(each.encode())])) for each in texts]
            await self.store.apply(Change(appends=tuple(made)))

        async def publish(self) -> None:
            """Let the outbox run until nothing waits.

            Raises:
                Fenced: Another opening has taken its writer over.
                Unavailable: The log or the store was away.
            """
            running = asyncio.create_task(self.outbox.run())
            # Nothing in memory suspends: in its first turn it comes as far as it can.
            await asyncio.sleep(0)
            if running.done():
                running.result()
            running.cancel()


@pytest.fixture
async def site() -> Site:
    made = Site()
    await made.log.declare(StreamSpec(name="s", partitions=1))
    return made


async def test_what_is_committed_reaches_the_log_in_order(site: Site) -> None:
    node = await site.node()
    await node.append("a", "b")
    await node.append("c")
    assert await site.texts() == []
    await node.publish()
    assert await site.texts() == ["a", "b", "c"]


@pytest.mark.parametrize("moment", [1, 2, 3, 4])
async def test_what_a_lost_connection_leaves_open_is_there_once(site: Site, moment: int) -> None:
    """Before and after a writer is opened, before and after it has published."""
    node = await site.node()
    await node.append("a", "b")
    site.lost = moment
    with pytest.raises(Unavailable):
        await node.publish()
    assert await site.texts() == (["a", "b"] if moment == 4 else [])
    await node.publish()
    assert await site.texts() == ["a", "b"]


async def test_what_a_dead_node_left_goes_before_what_its_successor_commits(site: Site) -> None:
    dead = await site.node()
    await dead.append("a", "b")
    node = await site.node()
    await node.append("c")
    await dead.append("too late, but committed")
    await node.publish()
    assert await site.texts() == ["a", "b", "too late, but committed", "c"]


async def test_a_node_that_was_taken_over_publishes_nothing_twice(site: Site) -> None:
    slept = await site.node()
    await slept.append("a")
    writer = await site.log.open_writer(1)
    node = await site.node()
    await node.publish()
    late = Append("s", 0, 1, encode_events([Event(b"a")]))
    with pytest.raises(Fenced, match="opened again"):
        await writer.publish([(1, late)])
    await slept.publish()
    assert await site.texts() == ["a"]


async def test_while_too_much_waits_appends_are_refused_and_rows_land(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MAX_WAITING", 3)
    node = await site.node()
    await node.append("a", "b")
    with pytest.raises(Overloaded, match="2 appends wait for the log"):
        await node.append("c", "d")
    await node.store.apply(Change(puts=(Put(Space.STATE, b"k", b"v"),)))
    await node.append("c")
    await node.publish()
    await node.append("d", "e", "f")
    await node.publish()
    assert await site.texts() == ["a", "b", "c", "d", "e", "f"]


async def test_what_waits_from_before_counts_too(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MAX_WAITING", 3)
    await (await site.node()).append("a", "b")
    with pytest.raises(Overloaded):
        await (await site.node()).append("c", "d")


async def test_a_deletion_without_an_answer_is_not_counted_for_ever(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MAX_WAITING", 3)
    node = await site.node()
    await node.append("a", "b", "c")

    def lose(moment: str) -> None:
        if moment == "after":
            raise Unavailable("the store's answer was lost")

    node.store.faults = lose
    with pytest.raises(Unavailable):
        await node.outbox.run()
    node.store.faults = None
    again = asyncio.create_task(node.outbox.run())
    await asyncio.sleep(0)
    again.cancel()
    await node.append("d", "e", "f")
    await node.publish()
    assert await site.texts() == ["a", "b", "c", "d", "e", "f"]


async def test_large_appends_are_published_by_themselves(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "PAGE_BYTES", 100)
    node = await site.node()
    await node.append("a" * 200, "b", "c" * 300)
    await node.publish()
    assert [len(each) for each in await site.texts()] == [200, 1, 300]


async def test_what_no_log_would_take_takes_its_change_with_it(site: Site) -> None:
    node = await site.node()
    large = Append("s", 0, 1, encode_events([Event(b"x" * (2 << 20))]))
    with pytest.raises(TooLarge):
        await node.store.apply(Change(puts=(Put(Space.STATE, b"k", b"v"),), appends=(large,)))
    assert await node.store.get(Space.STATE, b"k") is None
    assert await node.store.scan(Space.OUTBOX, b"") == []
