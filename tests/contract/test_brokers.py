"""What every broker promises."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.contract.contract_drivers import AnyBroker, OpenBroker

from headrace.model.effects import Change, Check, Put, Space
from headrace.model.errors import Conflict, Fenced, Invalid, Misuse, TooLarge, Unavailable, Unknown
from headrace.model.event import Event
from headrace.model.function import StreamSpec
from headrace.model.policy import MAX_BATCH_BYTES
from headrace.model.record import Append, Chunk, decode_events, encode_events
from headrace.storage.kv.keys import pack
from headrace.storage.log.base import Assigned, Extent, Reader
from headrace.storage.log.delayed_messages import opened
from headrace.storage.log.embedded import retention

MANY = 1_000_000
ORDERS = StreamSpec(name="orders", partitions=4)
TABLE = StreamSpec(name="table", cleanup="compact")


def append(
    *values: bytes | Event,
    stream: str = "orders",
    partition: int = 0,
    ids: tuple[str, ...] | None = None,
    hops: int = 0,
) -> Append:
    events = [each if isinstance(each, Event) else Event(each) for each in values]
    return Append(stream, partition, len(events), encode_events(events), hops, "", ids)


def watching(reader: Reader) -> asyncio.Future[None]:
    """What is set once the reader may have something."""
    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    reader.watch(waiter)
    return waiter


async def everything(
    broker: AnyBroker, stream: str = "orders", partition: int = 0, offset: int = 0
) -> list[tuple[int, bytes]]:
    """(offset, value) of every event from `offset`, read in small gulps."""
    reader = broker.subscribe("test", (stream,)).reader(stream, partition, offset)
    found: list[tuple[int, bytes]] = []
    while chunks := await reader.read(events=7, size=4096):
        for chunk in chunks:
            offsets = [chunk.offset_of(index) for index in range(chunk.low, chunk.high)]
            found += zip(offsets, [event.value for event in chunk.events()], strict=True)
    return found


async def test_events_are_read_in_the_order_they_were_appended(log: OpenBroker) -> None:
    await log.broker.declare(ORDERS)
    for number in range(0, 30, 3):
        await log.append([append(*(b"%d" % n for n in range(number, number + 3)))])
    assert await everything(log.broker) == [(n, b"%d" % n) for n in range(30)]


async def test_offsets_have_no_gaps_though_many_append_at_once(log: OpenBroker) -> None:
    await log.broker.declare(ORDERS)
    results = await asyncio.gather(
        *(log.append([append(b"%d" % n, partition=n % 4)]) for n in range(200))
    )
    for partition in range(4):
        found = await everything(log.broker, partition=partition)
        assert [offset for offset, _ in found] == list(range(50))
        for offset, value in found:
            log.must_stand(results[int(value)], f"orders/{partition}/{offset}")


async def test_an_append_says_where_its_events_stand(log: OpenBroker) -> None:
    await log.broker.declare(ORDERS)
    applied = await log.append([append(b"a", b"b"), append(b"c"), append(b"d", partition=3)])
    log.must_stand(applied, "orders/0/0", "orders/0/2", "orders/3/0")


async def test_hops_and_origin_travel_with_events_that_share_a_commit(log: OpenBroker) -> None:
    await log.broker.declare(ORDERS)
    await asyncio.gather(*(log.append([append(b"x", hops=n % 2)]) for n in range(6)))
    chunks = await log.broker.fetch("orders", 0, 0, events=MANY, size=MANY)
    hops = [chunk.hops for chunk in chunks for _ in range(chunk.size)]
    assert hops == [0, 1, 0, 1, 0, 1]


async def test_a_change_and_its_events_land_together(log: OpenBroker) -> None:
    await log.broker.declare(ORDERS)
    change = Change(puts=(Put(Space.STATE, b"key", b"value"),), appends=(append(b"a"),))
    applied = await log.commit(change)
    log.must_stand(applied, "orders/0/0")
    assert await log.storage.get(Space.STATE, b"key") == b"value"
    assert await everything(log.broker) == [(0, b"a")]


@pytest.mark.parametrize(("fence", "error"), [(True, Fenced), (False, Conflict)])
async def test_a_change_that_is_turned_down_appends_nothing(
    log: OpenBroker, fence: bool, error: type[Exception]
) -> None:
    await log.broker.declare(ORDERS)
    refused = Change(
        checks=(Check(Space.STATE, b"key", b"old", fence=fence),), appends=(append(b"never"),)
    )
    results = await asyncio.gather(
        log.append([append(b"a")]),
        log.commit(refused),
        log.append([append(b"b")]),
        return_exceptions=True,
    )
    assert isinstance(results[1], error)
    assert await everything(log.broker) == [(0, b"a"), (1, b"b")]


async def test_an_append_that_is_refused_takes_its_change_with_it(log: OpenBroker) -> None:
    await log.broker.declare(ORDERS)
    change = Change(
        puts=(Put(Space.STATE, b"key", b"value"),),
        appends=(append(b"good"), append(b"bad", stream="nowhere")),
    )
    with pytest.raises(Unknown):
        await log.commit(change)
    assert await log.storage.get(Space.STATE, b"key") is None
    assert await everything(log.broker) == []


async def test_an_unknown_stream_is_named_with_its_near_names(log: OpenBroker) -> None:
    await log.broker.declare(ORDERS)
    with pytest.raises(Unknown, match=r"`ordres`.*`orders`"):
        await log.append([append(b"x", stream="ordres")])
    with pytest.raises(Unknown, match="`orders`"):
        log.broker.stream("order")
    with pytest.raises(Unknown, match="`nothing`"):
        log.broker.subscribe("group", ("nothing",))


async def test_an_unknown_partition_is_told_which_there_are(log: OpenBroker) -> None:
    await log.broker.declare(ORDERS)
    for number in (4, -1):
        with pytest.raises(Unknown, match="0 to 3"):
            await log.append([append(b"x", partition=number)])


@pytest.mark.parametrize("name", ["", "a b", "a/b", "ä", "x" * 201, "a\n"])
async def test_a_name_that_cannot_be_is_refused(log: OpenBroker, name: str) -> None:
    with pytest.raises(Misuse, match="cannot name a stream"):
        await log.broker.declare(StreamSpec(name=name))


async def test_internal_and_long_names_are_fine(log: OpenBroker) -> None:
    for name in ("_calls", "x" * 200, "a.b-c_D9"):
        await log.broker.declare(StreamSpec(name=name))
    assert [spec.name for spec in log.broker.streams()] == sorted(["_calls", "x" * 200, "a.b-c_D9"])


async def test_redeclaring_changes_what_may_change(log: OpenBroker) -> None:
    await log.broker.declare(ORDERS)
    await log.append([append(b"kept")])
    wanted = msgspec.structs.replace(ORDERS, retention_age=60.0, schema={"type": "object"})
    assert await log.broker.declare(wanted) == wanted
    assert log.broker.stream("orders") == wanted
    broker = await log.reopen()
    assert broker.stream("orders") == wanted
    assert await everything(broker) == [(0, b"kept")]


@pytest.mark.parametrize(
    "fixed", [{"partitions": 5}, {"owner": "else"}, {"cleanup": "compact"}], ids=str
)
async def test_redeclaring_what_is_fixed_is_refused(
    log: OpenBroker, fixed: dict[str, object]
) -> None:
    await log.broker.declare(ORDERS)
    with pytest.raises(Misuse, match=f"`{next(iter(fixed))}=.*fixed"):
        await log.broker.declare(msgspec.structs.replace(ORDERS, **fixed))
    assert log.broker.stream("orders") == ORDERS


async def test_an_append_larger_than_the_limit_is_refused(log: OpenBroker) -> None:
    await log.broker.declare(ORDERS)
    with pytest.raises(TooLarge, match="smaller batches"):
        await log.append([append(b"x" * (MAX_BATCH_BYTES + 1))])
    assert await log.broker.extent("orders", 0) == Extent(0, 0, 0)


async def test_an_event_larger_than_its_stream_takes_is_refused(log: OpenBroker) -> None:
    await log.broker.declare(msgspec.structs.replace(ORDERS, max_event_bytes=100))
    await log.append([append(*[b"x" * 100] * 20)])
    with pytest.raises(TooLarge, match=r"event 1 .*101.*max_event_bytes"):
        await log.append([append(b"x", b"x" * 101)])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc0",
        b"\x92\x91\xa1x",
        b"\x91\xc1",
        b"\x91\x91\xc4\x01",
        b"{}",
        b"\x91\x91\xc4\x01x!",
    ],
    ids=bytes.hex,
)
async def test_a_body_that_is_no_array_of_events_is_refused(log: OpenBroker, body: bytes) -> None:
    await log.broker.declare(ORDERS)
    good = asyncio.create_task(log.append([append(b"good")]))
    with pytest.raises(Invalid):
        await log.append([Append("orders", 0, 1, body)])
    await good
    assert await everything(log.broker) == [(0, b"good")]


async def test_ids_must_be_one_per_event(log: OpenBroker) -> None:
    await log.broker.declare(ORDERS)
    with pytest.raises(Invalid, match="one id per event"):
        await log.append([append(b"a", b"b", ids=("only",))])


async def test_a_repeated_id_is_dropped_within_its_window(log: OpenBroker) -> None:
    await log.broker.declare(ORDERS)
    await log.append([append(b"a", b"b", ids=("1", "2"))])
    applied = await log.append([append(b"b", b"c", b"d", ids=("2", "3", ""))])
    assert applied.duplicates == 1
    log.must_stand(applied, "orders/0/2")
    assert await everything(log.broker) == [(0, b"a"), (1, b"b"), (2, b"c"), (3, b"d")]


async def test_an_append_of_nothing_but_repeats_has_no_position(log: OpenBroker) -> None:
    await log.broker.declare(ORDERS)
    await log.append([append(b"a", ids=("1",))])
    applied = await log.append([append(b"a", ids=("1",)), append(b"b", partition=1)])
    log.must_stand(applied, None, "orders/1/0")
    assert applied.duplicates == 1


async def test_a_repeat_is_seen_in_another_partition_and_within_one_commit(
    log: OpenBroker,
) -> None:
    await log.broker.declare(ORDERS)
    applied = await asyncio.gather(
        log.append([append(b"a", b"a", ids=("1", "1"))]),
        log.append([append(b"a", partition=1, ids=("1",))]),
    )
    assert [each.duplicates for each in applied] == [1, 1]
    assert await everything(log.broker, partition=1) == []


async def test_a_repeat_after_the_window_is_a_new_event(log: OpenBroker) -> None:
    await log.broker.declare(msgspec.structs.replace(ORDERS, dedupe_window=10.0))
    await log.append([append(b"a", ids=("1",))])
    log.clock.advance(9.9)
    assert (await log.append([append(b"a", ids=("1",))])).duplicates == 1
    log.clock.advance(0.2)
    await log.broker.sweep()
    assert (await log.append([append(b"a", ids=("1",))])).duplicates == 0


def later(key: bytes, *values: bytes, ids: tuple[str, ...] | None = None) -> Append:
    return msgspec.structs.replace(append(*values, ids=ids), later=key)


async def test_what_is_due_later_is_kept_as_a_row_and_has_no_position(log: OpenBroker) -> None:
    await log.broker.declare(ORDERS)
    applied = await log.append([later(b"k", b"a"), append(b"b")])
    log.must_stand(applied, None, "orders/0/0")
    assert applied.later == 1
    assert [row.key for row in applied.rows if row.space is Space.TIMERS] == [b"k"]
    assert await everything(log.broker) == [(0, b"b")]
    ((key, row),) = await log.storage.scan(Space.TIMERS, b"")
    assert (key, opened(row).count, opened(row).later) == (b"k", 1, b"")


async def test_ids_are_judged_when_events_are_taken_however_late_they_are_due(
    log: OpenBroker,
) -> None:
    await log.broker.declare(msgspec.structs.replace(ORDERS, dedupe_window=10.0))
    await log.append([later(b"k1", b"a", b"b", ids=("1", "2"))])
    for repeated in (append(b"a", ids=("1",)), later(b"k2", b"a", ids=("1",))):
        applied = await log.append([repeated])
        assert (applied.duplicates, applied.positions, applied.rows) == (1, (None,), ())
    mixed = await log.append([later(b"k3", b"b", b"c", ids=("2", "3"))])
    row = await log.storage.get(Space.TIMERS, b"k3")
    assert row is not None
    assert (mixed.duplicates, opened(row).count, opened(row).ids) == (1, 1, ("3",))
    assert await waiting(log) == {b"k1": ("1", "2"), b"k3": ("3",)}


async def test_an_id_is_known_as_long_as_its_message_waits(log: OpenBroker) -> None:
    for window in (10.0, 0.0):
        name = f"orders-{window:.0f}"
        await log.broker.declare(msgspec.structs.replace(ORDERS, name=name, dedupe_window=window))
        first = msgspec.structs.replace(
            later(b"w%d" % window, b"a", b"b", ids=("1", "2")), stream=name
        )
        await log.append([first])
        log.clock.advance(10.1)
        again = msgspec.structs.replace(
            later(b"x%d" % window, b"a", b"c", ids=("1", "3")), stream=name
        )
        applied = await log.append([again])
        assert (applied.duplicates, applied.later) == (1, 1)


def cancel(*ids: str) -> Append:
    return msgspec.structs.replace(append(ids=ids), kind="cancel")


async def waiting(log: OpenBroker) -> dict[bytes, tuple[str, ...] | None]:
    """The ids in each row of what waits."""
    rows = await log.storage.scan(Space.TIMERS, b"")
    return {key: opened(row).ids for key, row in rows if not key.startswith(pack("due-id"))}


async def test_what_waits_is_taken_back_by_its_id_and_the_others_stay(log: OpenBroker) -> None:
    await log.broker.declare(ORDERS)
    await log.append([later(b"k", b"a", b"b", b"c", ids=("1", "", "3")), append(b"d")])
    applied = await log.append([cancel("1", "nobody")])
    assert (applied.cancelled, applied.positions) == (("1",), (None,))
    assert await waiting(log) == {b"k": ("", "3")}
    row = await log.storage.get(Space.TIMERS, b"k")
    assert row is not None
    assert [event.value for event in decode_events(opened(row).body)] == [b"b", b"c"]
    assert (await log.append([cancel("1")])).cancelled == ()
    # Nothing of it is left in the log, and nothing in the log is taken back.
    assert await everything(log.broker) == [(0, b"d")]


async def test_changes_that_share_a_commit_see_what_the_ones_before_them_do(
    log: OpenBroker,
) -> None:
    await log.broker.declare(ORDERS)
    applied = await asyncio.gather(
        log.append([later(b"k1", b"a", ids=("1",))]),
        log.append([cancel("1")]),
        log.append([later(b"k2", b"b", ids=("1",))]),
        log.append([cancel("1"), later(b"k3", b"c", ids=("1",))]),
        log.append([later(b"k4", b"d", ids=("1",))]),
    )
    assert [each.cancelled for each in applied] == [(), ("1",), (), ("1",), ()]
    assert [each.duplicates for each in applied] == [0, 0, 0, 0, 1]
    assert await waiting(log) == {b"k3": ("1",)}


@pytest.mark.parametrize("ids", [(), ("",), ("x" * 1_025,), ("x",) * 10_001])
async def test_a_cancel_that_names_no_message_is_refused(
    log: OpenBroker, ids: tuple[str, ...]
) -> None:
    await log.broker.declare(ORDERS)
    with pytest.raises(Invalid):
        await log.append([cancel(*ids)])


async def test_repeats_are_known_after_opening_again(log: OpenBroker) -> None:
    await log.broker.declare(ORDERS)
    await log.append([append(b"a", ids=("1",))])
    await log.reopen()
    assert (await log.append([append(b"a", ids=("1",))])).duplicates == 1


async def test_an_id_whose_change_was_turned_down_is_not_seen(log: OpenBroker) -> None:
    await log.broker.declare(ORDERS)
    refused = Change(
        checks=(Check(Space.STATE, b"key", b"old"),), appends=(append(b"a", ids=("1",)),)
    )
    results = await asyncio.gather(
        log.commit(refused),
        log.append([append(b"a", ids=("1",))]),
        return_exceptions=True,
    )
    assert isinstance(results[0], Conflict)
    assert await everything(log.broker) == [(0, b"a")]


async def test_everything_goes_on_after_opening_again(log: OpenBroker) -> None:
    await log.broker.declare(ORDERS)
    await log.append([append(*(b"%d" % n for n in range(40)))])
    before = await log.broker.extent("orders", 0)
    broker = await log.reopen()
    assert await broker.extent("orders", 0) == before
    applied = await log.append([append(b"40")])
    log.must_stand(applied, "orders/0/40")
    assert await everything(broker) == [(n, b"%d" % n) for n in range(41)]


async def test_reading_begins_in_the_middle_of_a_blob(log: OpenBroker) -> None:
    await log.broker.declare(ORDERS)
    await log.append([append(*(b"%d" % n for n in range(20)))])
    await log.append([append(*(b"%d" % n for n in range(20, 40)))])
    expected = [(n, b"%d" % n) for n in range(13, 40)]
    assert await everything(log.broker, offset=13) == expected
    broker = await log.reopen()
    assert await everything(broker, offset=13) == expected


async def test_a_read_gives_no_more_events_than_asked_and_always_one(log: OpenBroker) -> None:
    await log.broker.declare(ORDERS)
    await log.append([append(*[b"x" * 100] * 50)])
    for again in (False, True):
        broker = await log.reopen() if again else log.broker
        chunks = await broker.fetch("orders", 0, 0, events=7, size=MANY)
        assert sum(chunk.size for chunk in chunks) == 7
        (one,) = await broker.fetch("orders", 0, 0, events=1, size=1)
        assert one.size == 1
        assert await broker.fetch("orders", 0, 50, events=1, size=1) == []


async def test_about_as_many_bytes_are_read_as_asked(log: OpenBroker) -> None:
    await log.broker.declare(ORDERS)
    for _ in range(20):
        await log.append([append(b"x" * 9_000)])
    for again in (False, True):
        broker = await log.reopen() if again else log.broker
        chunks = await broker.fetch("orders", 0, 0, events=MANY, size=45_000)
        assert 45_000 <= sum(len(chunk.body) for chunk in chunks) <= 56_000


async def test_seeking_goes_anywhere_that_is_kept(log: OpenBroker) -> None:
    await log.broker.declare(ORDERS)
    await log.append([append(*(b"%d" % n for n in range(10)))])
    reader = log.broker.subscribe("g", ("orders",)).reader("orders", 0, 0)
    await reader.read(events=MANY, size=MANY)
    assert reader.position == 10
    reader.seek(4)
    assert reader.position == 4
    (chunk,) = await reader.read(events=2, size=MANY)
    assert [event.value for event in chunk.events()] == [b"4", b"5"]
    reader.seek(-5)
    assert reader.position == 0


async def test_a_waiting_reader_wakes_when_an_event_arrives(log: OpenBroker) -> None:
    await log.broker.declare(ORDERS)
    reader = log.broker.subscribe("g", ("orders",)).reader("orders", 2, 0)
    waiting = watching(reader)
    await log.append([append(b"elsewhere", partition=1)])
    assert not waiting.done()
    await log.append([append(b"here", partition=2)])
    async with asyncio.timeout(5):
        await waiting
    assert [chunk.size for chunk in await reader.read(events=9, size=MANY)] == [1]


async def test_waiting_returns_at_once_where_there_is_something(log: OpenBroker) -> None:
    await log.broker.declare(ORDERS)
    await log.append([append(b"x")])
    reader = log.broker.subscribe("g", ("orders",)).reader("orders", 0, 0)
    async with asyncio.timeout(5):
        await watching(reader)


async def test_closing_a_reader_lets_its_waiter_go(log: OpenBroker) -> None:
    await log.broker.declare(ORDERS)
    reader = log.broker.subscribe("g", ("orders",)).reader("orders", 0, 0)
    waiting = watching(reader)
    reader.close()
    reader.close()
    async with asyncio.timeout(5):
        await waiting
    with pytest.raises(Unavailable):
        await reader.read(events=1, size=1)


async def test_a_subscription_owns_every_partition_until_it_is_closed(log: OpenBroker) -> None:
    await log.broker.declare(ORDERS)
    subscription = log.broker.subscribe("g", ("orders",))
    assert await subscription.read() == Assigned((0, 1, 2, 3))
    waiting = asyncio.create_task(subscription.read())
    await asyncio.wait([waiting], timeout=0)
    assert not waiting.done()
    await subscription.close()
    with pytest.raises(Unavailable):
        await waiting


async def test_streams_read_together_must_be_co_partitioned(log: OpenBroker) -> None:
    await log.broker.declare(ORDERS)
    await log.broker.declare(StreamSpec(name="other", partitions=3))
    with pytest.raises(Misuse, match="equal numbers of partitions"):
        log.broker.subscribe("g", ("orders", "other"))
    with pytest.raises(Misuse):
        log.broker.subscribe("g", ("orders",)).reader("other", 0, 0)


async def test_an_offset_is_found_by_time(log: OpenBroker) -> None:
    await log.broker.declare(ORDERS)
    began = log.clock.now()
    for _ in range(5):
        await log.append([append(b"a", b"b", b"c")])
        log.clock.advance(10)
    for again in (False, True):
        broker = await log.reopen() if again else log.broker
        second = 1_000_000
        assert await broker.offset_at("orders", 0, 0) == 0
        assert await broker.offset_at("orders", 0, began) == 0
        assert await broker.offset_at("orders", 0, began + 1) == 3
        assert await broker.offset_at("orders", 0, began + 20 * second) == 6
        assert await broker.offset_at("orders", 0, began + 40 * second + 1) == 15
        assert await broker.offset_at("orders", 1, began) == 0


async def test_time_never_goes_back_within_a_partition(log: OpenBroker) -> None:
    await log.broker.declare(ORDERS)
    for step in (5.0, -3_600.0, 0.0, 7_200.0):
        await log.append([append(b"x")])
        log.clock.advance(step)
    broker = await log.reopen()
    log.clock.advance(-10_000.0)
    await log.append([append(b"x")])
    chunks = await broker.fetch("orders", 0, 0, events=MANY, size=MANY)
    times = [chunk.appended for chunk in chunks]
    assert len(times) == 5
    assert all(before <= after for before, after in pairwise(times))


async def test_old_events_leave_by_age_and_offsets_go_on(log: OpenBroker) -> None:
    await log.broker.declare(msgspec.structs.replace(ORDERS, retention_age=60.0))
    await log.append([append(b"0", b"1")])
    log.clock.advance(50)
    await log.append([append(b"2")])
    log.clock.advance(20)
    await log.broker.sweep()
    assert await everything(log.broker) == [(2, b"2")]
    extent = await log.broker.extent("orders", 0)
    assert (extent.low, extent.high) == (2, 3)
    log.clock.advance(100)
    await log.broker.sweep()
    assert await log.broker.extent("orders", 0) == Extent(3, 3, 0)
    broker = await log.reopen()
    assert await broker.extent("orders", 0) == Extent(3, 3, 0)
    log.must_stand(await log.append([append(b"3")]), "orders/0/3")
    assert await everything(broker) == [(3, b"3")]


async def test_a_reader_that_retention_overtakes_goes_on_at_the_lowest_kept(
    log: OpenBroker,
) -> None:
    await log.broker.declare(msgspec.structs.replace(ORDERS, retention_age=60.0))
    await log.append([append(b"0", b"1")])
    reader = log.broker.subscribe("g", ("orders",)).reader("orders", 0, 0)
    log.clock.advance(100)
    await log.append([append(b"2")])
    await log.broker.sweep()
    (chunk,) = await reader.read(events=9, size=MANY)
    assert (chunk.start, chunk.end) == (2, 3)


async def test_old_events_leave_by_size_per_partition(log: OpenBroker) -> None:
    await log.broker.declare(msgspec.structs.replace(ORDERS, retention_bytes=50_000))
    for number in range(10):
        await log.append([append(b"%d" % number * 10_000)])
    await log.append([append(b"elsewhere", partition=1)])
    await log.broker.sweep()
    extent = await log.broker.extent("orders", 0)
    assert (extent.low, extent.high) == (5, 10)
    assert 50_000 <= extent.bytes <= 60_000
    assert await everything(log.broker, partition=1) == [(0, b"elsewhere")]


async def test_retention_stops_at_what_a_reader_is_owed(
    log: OpenBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "ROWS_AT_ONCE", 2)
    await log.broker.declare(msgspec.structs.replace(ORDERS, retention_age=1.0, retention_bytes=1))
    for number in range(10):
        await log.append([append(b"%d" % number, b"-"), append(b"other", partition=1)])
    log.clock.advance(10)
    owed: dict[tuple[str, int], int] | None = None

    async def hold() -> dict[tuple[str, int], int] | None:
        return owed

    log.broker.hold(hold)
    await log.broker.sweep()
    assert (await log.broker.extent("orders", 0)).low == 0  # nobody could tell yet
    # A batch goes whole or not at all, so the one that holds what is owed stays.
    owed = {("orders", 0): 7}
    await log.broker.sweep()
    assert (await log.broker.extent("orders", 0)).low == 6
    assert (await log.broker.extent("orders", 1)).low == 10
    owed = {}
    await log.broker.sweep()
    assert (await log.broker.extent("orders", 0)).low == 20


async def test_compaction_leaves_what_a_reader_is_owed(log: OpenBroker) -> None:
    await log.broker.declare(TABLE)
    for number in range(6):
        await log.append([row("k", b"%d" % number)])
    owed = {("table", 0): 3}

    async def hold() -> dict[tuple[str, int], int]:
        return owed

    log.broker.hold(hold)
    await log.broker.compact("table")
    assert [offset for offset, _ in await everything(log.broker, "table")] == [2, 3, 4, 5]
    owed.clear()
    await log.broker.compact("table")
    assert await everything(log.broker, "table") == [(5, b"5")]


async def test_without_retention_everything_is_kept(log: OpenBroker) -> None:
    await log.broker.declare(ORDERS)
    await log.append([append(b"x")])
    log.clock.advance(10 * 365 * 86_400)
    await log.broker.sweep()
    assert await everything(log.broker) == [(0, b"x")]


async def test_what_is_passed_and_old_is_removed_and_nothing_else(log: OpenBroker) -> None:
    await log.broker.declare(ORDERS)
    for number in range(3):
        await log.append([append(b"%d" % number)])
        log.clock.advance(10)
    await log.append([append(b"elsewhere", partition=1)])
    times = [
        chunk.appended for chunk in await log.broker.fetch("orders", 0, 0, events=9, size=MANY)
    ]
    await log.broker.trim("orders", 0, below=0, before=log.clock.now())
    await log.broker.trim("orders", 0, below=3, before=times[0])
    assert len(await everything(log.broker)) == 3
    await log.broker.trim("orders", 0, below=3, before=times[1])
    assert await everything(log.broker) == [(1, b"1"), (2, b"2")]
    await log.broker.trim("orders", 0, below=2, before=log.clock.now())
    assert await everything(log.broker) == [(2, b"2")]
    await log.broker.trim("orders", 0, below=99, before=log.clock.now())
    assert await log.broker.extent("orders", 0) == Extent(3, 3, 0)
    assert await everything(log.broker, partition=1) == [(0, b"elsewhere")]
    broker = await log.reopen()
    assert await broker.extent("orders", 0) == Extent(3, 3, 0)
    log.must_stand(await log.append([append(b"3")]), "orders/0/3")


async def test_a_batch_that_is_passed_in_part_stays_whole(log: OpenBroker) -> None:
    await log.broker.declare(ORDERS)
    await log.append([append(b"0", b"1", b"2")])
    log.clock.advance(10)
    await log.broker.trim("orders", 0, below=2, before=log.clock.now())
    assert len(await everything(log.broker)) == 3


async def test_a_reader_is_not_disturbed_by_what_is_removed_behind_it(
    log: OpenBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "ROWS_AT_ONCE", 7)
    await log.broker.declare(ORDERS)
    for number in range(30):
        await log.append([append(b"%d" % number)])
    log.clock.advance(10)
    reader = log.broker.subscribe("g", ("orders",)).reader("orders", 0, 25)
    await log.broker.trim("orders", 0, below=25, before=log.clock.now())
    chunks = await reader.read(events=20, size=MANY)
    assert (chunks[0].start, chunks[-1].end) == (25, 30)
    assert (await log.broker.extent("orders", 0)).low == 25


def row(key: str | None, value: bytes) -> Append:
    return append(Event(value, key=key), stream="table")


async def test_compaction_keeps_the_last_event_of_every_key_at_its_offset(
    log: OpenBroker,
) -> None:
    await log.broker.declare(TABLE)
    both = append(Event(b"a1", key="a"), Event(b"b1", key="b"), stream="table")
    for each in (both, row("a", b"a2"), row(None, b"?"), row("c", b"c1"), row("a", b"a3")):
        await log.append([each])
    expected = [(1, b"b1"), (3, b"?"), (4, b"c1"), (5, b"a3")]
    await log.broker.compact("table")
    assert await everything(log.broker, "table") == expected
    broker = await log.reopen()
    assert await everything(broker, "table") == expected
    assert await everything(broker, "table", offset=2) == expected[1:]
    log.must_stand(await log.append([row("a", b"a4")]), "table/0/6")


async def test_the_newest_chunk_is_never_compacted(log: OpenBroker) -> None:
    await log.broker.declare(TABLE)
    await log.append([append(*[Event(b"%d" % n, key="k") for n in range(20)], stream="table")])
    await log.broker.compact("table")
    assert len(await everything(log.broker, "table")) == 20


async def test_a_key_that_is_gone_leaves_when_everyone_has_had_time_to_see_it(
    log: OpenBroker,
) -> None:
    await log.broker.declare(TABLE)
    for each in (row("a", b"a1"), row("a", b""), row("b", b"b1")):
        await log.append([each])
    await log.broker.compact("table")
    assert await everything(log.broker, "table") == [(1, b""), (2, b"b1")]
    log.clock.advance(2 * 86_400)
    await log.append([row("c", b"c1")])
    await log.broker.compact("table")
    assert await everything(log.broker, "table") == [(2, b"b1"), (3, b"c1")]
    assert (await log.broker.extent("table", 0)).low == 2


@pytest.mark.parametrize("partition", [0, 1])
async def test_an_empty_partition_reads_empty(log: OpenBroker, partition: int) -> None:
    await log.broker.declare(ORDERS)
    assert await everything(log.broker, partition=partition) == []
    assert await log.broker.extent("orders", partition) == Extent(0, 0, 0)
    assert await log.broker.offset_at("orders", partition, 0) == 0


async def test_a_closed_log_takes_nothing(log: OpenBroker) -> None:
    await log.broker.declare(ORDERS)
    await log.broker.close()
    with pytest.raises(Unavailable):
        await log.append([append(b"x")])
    await log.reopen()
    await log.published()
    # An outbox holds it until the log is back; a log that lives in the store has taken nothing.
    assert len(await everything(log.broker)) == log.has_outbox


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    batches=st.lists(
        st.tuples(st.integers(0, 3), st.integers(1, 40), st.booleans(), st.integers(0, 1)),
        min_size=1,
        max_size=30,
    ),
    start=st.integers(0, 60),
    gulp=st.integers(1, 50),
)
async def test_any_batches_are_read_back_as_one_sequence_per_partition(
    log: OpenBroker, batches: list[tuple[int, int, bool, int]], start: int, gulp: int
) -> None:
    name = f"s{log.clock.now()}"
    log.clock.advance(1)
    await log.broker.declare(StreamSpec(name=name, partitions=4))
    model: dict[int, list[bytes]] = {each: [] for each in range(4)}
    pending = []
    for index, (partition, count, together, hops) in enumerate(batches):
        values = [b"%d.%d" % (index, n) for n in range(count)]
        model[partition] += values
        made = append(*values, stream=name, partition=partition, hops=hops)
        pending.append(asyncio.create_task(log.append([made])))
        if not together:
            await asyncio.gather(*pending)
    await asyncio.gather(*pending)
    for partition, values in model.items():
        chunks: list[Chunk] = []
        reader = log.broker.subscribe("g", (name,)).reader(name, partition, start)
        while more := await reader.read(events=gulp, size=MANY):
            chunks += more
        assert [e.value for c in chunks for e in c.events()] == values[start:]
        assert all(before.end == after.start for before, after in pairwise(chunks))
