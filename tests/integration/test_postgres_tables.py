"""Tables in a real PostgreSQL: a snapshot, then the stream; kills on either side double nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.services.servers import Server, absent, missing

from headrace.environment.clock import SystemClock
from headrace.environment.failpoints import arm, disarm
from headrace.errors import Misuse
from headrace.model.errors import Unavailable
from headrace.model.event import Event
from headrace.model.replication_slot import Slot
from headrace.sources import SqlTable

psycopg = pytest.importorskip("psycopg")

CREATE = "CREATE TABLE {} (id int PRIMARY KEY, name text, doc jsonb, raw bytea, price numeric)"


class Kept:
    """An appender whose memory outlives the node, one change at a time."""

    stream = "_shop.note.table.0"

    def __init__(self) -> None:
        self.row: bytes | None = None
        self.events: list[Event] = []

    async def checkpoint(self) -> bytes | None:
        return self.row

    def works(self) -> None:
        return

    async def emit(self, events: list[Event], *, checkpoint: bytes | None = None) -> None:
        await asyncio.sleep(0)
        self.events += events
        self.row = checkpoint

    @property
    def told(self) -> list[tuple[Any, ...]]:
        values = [msgspec.json.decode(event.value) for event in self.events]
        return [
            (event.key, value["op"], value["before"], value["after"])
            for event, value in zip(self.events, values, strict=True)
        ]

    @property
    def names(self) -> list[tuple[str | None, str]]:
        return [(key, op) for key, op, *_ in self.told]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if reason := missing("postgres"):
        absent(reason)
    server = Server("postgres", tmp_path_factory.mktemp("postgres"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def url(server: Server) -> str:
    return f"postgresql://postgres@127.0.0.1:{server.port}/postgres"


@pytest.fixture
def shop(url: str) -> Iterator[Any]:
    with psycopg.connect(url, autocommit=True) as db:
        db.execute(CREATE.format("orders"))
        yield db
    with psycopg.connect(url, autocommit=True) as db:  # the first may have died with the server
        db.execute("DROP TABLE orders CASCADE")
        for _ in range(100):
            try:
                db.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
                break
            except psycopg.errors.ObjectInUse:
                db.execute("SELECT pg_sleep(0.05)")
        for (name,) in db.execute("SELECT pubname FROM pg_publication").fetchall():
            db.execute(f'DROP PUBLICATION "{name}"')


async def life(
    url: str, appender: Kept, folder: Path, *, until: Callable[[], bool], **more: Any
) -> None:
    """One life of the source, until `until`, or until it fails."""
    from headrace.sources.tables.postgres import ReplicationSource

    trigger = SqlTable(url, more.pop("table", "public.orders"), **more)
    source = ReplicationSource(trigger, SystemClock(), folder)
    running = asyncio.ensure_future(source.run(appender))  # type: ignore[arg-type]  # stands for a SourceAppender
    try:
        async with asyncio.timeout(20):
            while not until() and not running.done():  # noqa: ASYNC110  # it looks into a database
                await asyncio.sleep(0.01)
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def standing(trigger: SqlTable) -> Slot:
    """The slot of the source that `life` runs."""
    from headrace.sources.tables.slot_lag import slot_state

    return await slot_state(trigger, Kept.stream, SystemClock())


async def test_rows_that_are_there_are_read_and_then_every_change_is_told(
    shop: Any, url: str, tmp_path: Path
) -> None:
    shop.execute("INSERT INTO orders VALUES (1, 'old', '{\"a\": 1.10}', '\\x00ff', 1.10)")
    appender = Kept()
    await life(url, appender, tmp_path, until=lambda: len(appender.events) == 1)
    with shop.transaction():
        shop.execute("INSERT INTO orders VALUES (2, 'new')")
        shop.execute("UPDATE orders SET name = 'changed' WHERE id = 2")
    with suppress(ZeroDivisionError), shop.transaction():
        shop.execute("INSERT INTO orders VALUES (99)")
        raise ZeroDivisionError
    shop.execute("UPDATE orders SET id = 3 WHERE id = 2")
    shop.execute("DELETE FROM orders WHERE id = 1")
    shop.execute("TRUNCATE orders")
    await life(url, appender, tmp_path, until=lambda: len(appender.events) >= 7)
    old = {"id": 1, "name": "old", "doc": {"a": 1.1}, "raw": "AP8=", "price": "1.10"}
    new = {"id": 2, "name": "new", "doc": None, "raw": None, "price": None}
    assert appender.told == [
        ("1", "read", None, old),
        ("2", "insert", None, new),
        ("2", "update", None, new | {"name": "changed"}),
        ("2", "delete", {"id": 2}, None),
        ("3", "insert", None, new | {"name": "changed", "id": 3}),
        ("1", "delete", {"id": 1}, None),
        (None, "truncate", None, None),
    ]
    assert len({event.id for event in appender.events}) == 7
    assert not list((tmp_path / "tables").iterdir())


async def test_rows_written_while_the_snapshot_is_told_are_told_once(
    shop: Any, url: str, tmp_path: Path
) -> None:
    shop.execute("INSERT INTO orders SELECT g, repeat('x', 500) FROM generate_series(1, 5000) g")
    appender = Kept()
    number = 5_000

    def write() -> bool:
        nonlocal number
        if number < 5_050:
            number += 1
            shop.execute("INSERT INTO orders (id) VALUES (%s)", [number])
        return len(appender.events) >= 5_050

    await life(url, appender, tmp_path, until=write)
    assert sorted(int(key or 0) for key, _ in appender.names) == list(range(1, 5_051))


@pytest.mark.parametrize(
    "label", ["feed:before-append", "feed:after-append", "feed:after-acknowledge"]
)
async def test_a_node_that_dies_between_two_steps_neither_loses_nor_doubles_a_row(
    shop: Any, url: str, tmp_path: Path, label: str
) -> None:
    shop.execute("INSERT INTO orders SELECT g, repeat('x', 5000) FROM generate_series(1, 200) g")
    appender, number = Kept(), 200
    for passes in (1, 2, 3, 1, 2, 4):
        left = passes

        def die() -> None:
            nonlocal left
            left -= 1
            if not left:
                raise Unavailable("killed")

        arm(label, die)
        number += 1
        shop.execute("INSERT INTO orders (id) VALUES (%s)", [number])
        with suppress(Unavailable):
            await life(
                url,
                appender,
                tmp_path,
                until=lambda: len(appender.events) >= number,  # noqa: B023  # called at once
            )
        disarm()
    await life(url, appender, tmp_path, until=lambda: len(appender.events) >= number)
    assert [int(key or 0) for key, _ in appender.names] == list(range(1, number + 1))


async def test_a_server_that_is_killed_is_gone_on_with(
    server: Server, shop: Any, url: str, tmp_path: Path
) -> None:
    appender = Kept()
    shop.execute("INSERT INTO orders (id) VALUES (1)")
    await life(url, appender, tmp_path, until=lambda: len(appender.events) == 1)
    server.kill()
    with pytest.raises(Unavailable):
        await life(url, appender, tmp_path, until=lambda: False)
    server.start()
    with psycopg.connect(url, autocommit=True) as db:
        db.execute("INSERT INTO orders (id) VALUES (2)")
        await life(url, appender, tmp_path, until=lambda: len(appender.events) == 2)
    assert appender.names == [("1", "read"), ("2", "insert")]


async def test_the_server_may_forget_only_what_was_told(
    shop: Any, url: str, tmp_path: Path
) -> None:
    appender = Kept()
    await life(
        url,
        appender,
        tmp_path,
        until=lambda: appender.row is not None and b"streaming" in appender.row,
    )

    def confirmed() -> int:
        sql = "SELECT confirmed_flush_lsn - '0/0'::pg_lsn FROM pg_replication_slots"
        return int(shop.execute(sql).fetchone()[0])

    before = confirmed()
    shop.execute("INSERT INTO orders (id) VALUES (1)")

    def refuse() -> None:
        raise Unavailable("killed")

    arm("feed:before-append", refuse)
    with suppress(Unavailable):
        await life(url, appender, tmp_path, until=lambda: False)
    disarm()
    assert confirmed() <= before + 10_000
    assert appender.events == []
    await life(
        url, appender, tmp_path, until=lambda: bool(appender.events) and confirmed() > before
    )
    assert appender.names == [("1", "insert")]


@pytest.mark.parametrize(
    ("do", "settings", "says"),
    [
        ("SELECT 1", {"key_columns": "name"}, "REPLICA IDENTITY FULL"),
        ("ALTER TABLE orders REPLICA IDENTITY NOTHING", {}, "REPLICA IDENTITY FULL"),
        (
            "SELECT pg_create_logical_replication_slot('headrace_shop_note_table_0', 'pgoutput')",
            {},
            "belongs to another reader",
        ),
    ],
)
async def test_what_cannot_be_watched_is_refused_with_the_fix(
    shop: Any, url: str, tmp_path: Path, do: str, settings: dict[str, Any], says: str
) -> None:
    shop.execute(do)
    with pytest.raises(Misuse, match=says):
        await life(url, Kept(), tmp_path, until=lambda: False, **settings)


async def test_json_of_several_lines_is_told_as_it_was_written(
    shop: Any, url: str, tmp_path: Path
) -> None:
    shop.execute("ALTER TABLE orders ADD COLUMN note json")
    for number in range(1, 4):
        shop.execute("INSERT INTO orders (id, note) VALUES (%s, E'{\n \"a\": 1\n}')", [number])
    appender = Kept()
    await life(url, appender, tmp_path, until=lambda: len(appender.events) == 3)
    shop.execute("INSERT INTO orders (id, note) VALUES (4, E'[\n]')")
    await life(url, appender, tmp_path, until=lambda: len(appender.events) == 4)
    assert [after["note"] for *_, after in appender.told] == [{"a": 1}] * 3 + [[]]


PARTED = (
    "CREATE TABLE parted (id int{primary}, name text) PARTITION BY RANGE (id);"
    "CREATE TABLE low PARTITION OF parted FOR VALUES FROM (0) TO (10);"
    "CREATE TABLE high PARTITION OF parted FOR VALUES FROM (10) TO (100) PARTITION BY RANGE (id);"
    "CREATE TABLE higher PARTITION OF high FOR VALUES FROM (10) TO (20);"
)


@pytest.fixture
def parted(shop: Any) -> Iterator[Any]:
    yield shop
    shop.execute("DROP TABLE IF EXISTS parted, parent CASCADE; DROP VIEW IF EXISTS seen")


async def test_partitions_that_do_not_say_which_row_was_changed_are_refused_with_the_cure(
    parted: Any, url: str, tmp_path: Path
) -> None:
    parted.execute(PARTED.format(primary=""))
    parted.execute("ALTER TABLE parted REPLICA IDENTITY FULL")
    parted.execute("INSERT INTO parted VALUES (1, 'a'), (11, 'b')")
    appender, table = Kept(), {"table": "parted", "key_columns": "id"}
    with pytest.raises(Misuse, match="which row was changed") as refused:
        await life(url, appender, tmp_path, until=lambda: False, **table)
    assert parted.execute("SELECT count(*) FROM pg_publication").fetchone() == (0,)
    parted.execute("UPDATE parted SET name = 'own'")  # its owner is not disturbed
    parted.execute(str(refused.value).split("`")[3])
    await life(url, appender, tmp_path, until=lambda: len(appender.events) == 2, **table)
    parted.execute("UPDATE parted SET name = 'new'")
    parted.execute("DELETE FROM parted WHERE id = 1")
    await life(url, appender, tmp_path, until=lambda: len(appender.events) == 5, **table)
    assert appender.told[2:] == [
        ("1", "update", {"id": 1, "name": "own"}, {"id": 1, "name": "new"}),
        ("11", "update", {"id": 11, "name": "own"}, {"id": 11, "name": "new"}),
        ("1", "delete", {"id": 1, "name": "new"}, None),
    ]


async def test_partitions_of_a_table_with_a_primary_key_need_nothing(
    parted: Any, url: str, tmp_path: Path
) -> None:
    parted.execute(PARTED.format(primary=" PRIMARY KEY"))
    appender = Kept()
    parted.execute("INSERT INTO parted VALUES (1, 'a'), (11, 'b')")
    await life(url, appender, tmp_path, until=lambda: len(appender.events) == 2, table="parted")
    parted.execute("UPDATE parted SET name = 'new'; DELETE FROM parted")
    await life(url, appender, tmp_path, until=lambda: len(appender.events) == 6, table="parted")
    assert [op for _, op in appender.names[2:]] == ["update", "update", "delete", "delete"]


async def test_a_partition_that_is_attached_later_is_shown_with_the_cure(
    parted: Any, url: str, tmp_path: Path
) -> None:
    parted.execute(PARTED.format(primary=""))
    for name in ("parted", "low", "higher"):
        parted.execute(f"ALTER TABLE {name} REPLICA IDENTITY FULL")
    appender, table = Kept(), {"table": "parted", "key_columns": "id"}
    await life(
        url,
        appender,
        tmp_path,
        until=lambda: appender.row is not None and b"streaming" in appender.row,
        **table,
    )
    assert (await standing(SqlTable(url, "parted", "id"))).error == ""
    parted.execute("CREATE TABLE late PARTITION OF parted FOR VALUES FROM (100) TO (200)")
    cure = "ALTER TABLE late REPLICA IDENTITY FULL"
    assert cure in (await standing(SqlTable(url, "parted", "id"))).error
    with pytest.raises(Misuse, match=cure):
        await life(url, appender, tmp_path, until=lambda: False, **table)


async def test_tables_that_inherit_are_looked_at_and_one_that_came_later_is_not_overlooked(
    parted: Any, url: str, tmp_path: Path
) -> None:
    parted.execute(
        "CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child () INHERITS (parent)"
    )
    appender = Kept()
    with pytest.raises(Misuse, match="ALTER TABLE child REPLICA IDENTITY FULL"):
        await life(url, appender, tmp_path, until=lambda: False, table="parent")
    parted.execute("ALTER TABLE child REPLICA IDENTITY FULL; INSERT INTO child VALUES (1)")
    await life(url, appender, tmp_path, until=lambda: len(appender.events) == 1, table="parent")
    parted.execute("UPDATE child SET id = 2")
    await life(url, appender, tmp_path, until=lambda: len(appender.events) == 3, table="parent")
    assert appender.names == [("1", "read"), ("1", "delete"), ("2", "insert")]
    parted.execute("CREATE TABLE later (PRIMARY KEY (id)) INHERITS (parent)")
    assert "`public.later`" in (await standing(SqlTable(url, "parent"))).error
    with pytest.raises(Misuse, match=r"`public\.later` was created again, added since"):
        await life(url, appender, tmp_path, until=lambda: False, table="parent")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (
            "CREATE VIEW seen AS SELECT * FROM orders",
            "`seen` is a view: .* the tables it is made of",
        ),
        ("CREATE MATERIALIZED VIEW seen AS SELECT * FROM orders", "is a materialized view"),
        ("CREATE UNLOGGED TABLE seen (id int PRIMARY KEY)", "ALTER TABLE seen SET LOGGED"),
    ],
)
async def test_what_the_server_does_not_stream_is_refused_by_its_name(
    shop: Any, url: str, tmp_path: Path, make: str, says: str
) -> None:
    kind = make.removeprefix("CREATE ").removeprefix("UNLOGGED ").partition(" seen")[0]
    shop.execute(make)
    try:
        with pytest.raises(Misuse, match=says):
            await life(url, Kept(), tmp_path, until=lambda: False, table="seen")
    finally:
        shop.execute(f"DROP {kind} seen")


async def test_a_table_that_is_not_there_yet_is_asked_for_again(
    shop: Any, url: str, tmp_path: Path
) -> None:
    with pytest.raises(Unavailable, match="has no table `nothing`; create it"):
        await life(url, Kept(), tmp_path, until=lambda: False, table="nothing")


async def test_a_table_that_was_created_again_is_not_taken_for_the_one_that_is_streamed(
    shop: Any, url: str, tmp_path: Path
) -> None:
    appender, trigger = Kept(), SqlTable(url, "orders")
    await life(
        url,
        appender,
        tmp_path,
        until=lambda: appender.row is not None and b"streaming" in appender.row,
    )
    assert (await standing(trigger)).error == ""
    shop.execute("DROP TABLE orders")
    shop.execute(CREATE.format("orders"))
    assert "created again" in (await standing(trigger)).error
    with pytest.raises(Misuse, match="created again"):
        await life(url, appender, tmp_path, until=lambda: False)


async def test_a_transaction_longer_than_the_server_waits_for_an_answer_is_told_in_one_go(
    shop: Any, url: str, tmp_path: Path
) -> None:
    class Slow(Kept):
        async def emit(self, events: list[Event], *, checkpoint: bytes | None = None) -> None:
            await asyncio.sleep(0.02)
            await super().emit(events, checkpoint=checkpoint)

    appender = Slow()
    try:
        shop.execute("ALTER SYSTEM SET wal_sender_timeout = '500ms'")
        shop.execute("SELECT pg_reload_conf()")
        await life(
            url,
            appender,
            tmp_path,
            until=lambda: appender.row is not None and b"str" in appender.row,
        )
        shop.execute("INSERT INTO orders SELECT n FROM generate_series(1, 20000) AS n")
        await life(url, appender, tmp_path, until=lambda: len(appender.events) == 20_000)
        assert [int(key or 0) for key, _ in appender.names] == list(range(1, 20_001))
    finally:
        shop.execute("ALTER SYSTEM RESET wal_sender_timeout")
        shop.execute("SELECT pg_reload_conf()")


async def test_a_slot_that_is_gone_is_told_and_another_begins_anew(
    shop: Any, url: str, tmp_path: Path
) -> None:
    appender = Kept()
    shop.execute("INSERT INTO orders (id) VALUES (1)")
    await life(
        url,
        appender,
        tmp_path,
        until=lambda: appender.row is not None and b"streaming" in appender.row,
    )
    while shop.execute("SELECT 1 FROM pg_replication_slots WHERE active").fetchone():  # noqa: ASYNC110  # as above
        await asyncio.sleep(0.05)
    shop.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
    with pytest.raises(Misuse, match="is gone"):
        await life(url, appender, tmp_path, until=lambda: False)
    await life(url, appender, tmp_path, until=lambda: len(appender.events) == 2, slot="another")
    assert appender.names == [("1", "read"), ("1", "read")]


async def test_a_slot_says_how_far_it_is_behind_whether_or_not_it_is_read(
    shop: Any, url: str, tmp_path: Path
) -> None:
    appender, trigger = Kept(), SqlTable(url, "orders")

    async def look() -> Slot:
        return await standing(trigger)

    assert (await look()).error == "the database has no slot `headrace_shop_note_table_0`"
    seen: list[Slot] = []
    life_of = asyncio.create_task(life(url, appender, tmp_path, until=lambda: bool(seen)))
    while not appender.row or b"streaming" not in appender.row or not (await look()).active:  # noqa: ASYNC110  # as above
        await asyncio.sleep(0.05)
    seen.append(await look())
    await life_of
    assert (seen[0].active, seen[0].wal_status, seen[0].state()) == (True, "reserved", "ok")
    shop.execute("INSERT INTO orders SELECT n, repeat('x', 500) FROM generate_series(1, 2000) AS n")
    while (left := await look()).active:  # noqa: ASYNC110  # as above
        await asyncio.sleep(0.05)
    assert left.behind_bytes is not None
    assert left.behind_bytes > 1_000_000
    assert left.state(1_000_000) == "behind"
    shop.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
    assert (await look()).state() == "unknown"


async def test_a_slot_whose_log_the_server_threw_away_is_lost(
    shop: Any, url: str, tmp_path: Path
) -> None:
    appender, trigger = Kept(), SqlTable(url, "orders")
    await life(
        url,
        appender,
        tmp_path,
        until=lambda: appender.row is not None and b"streaming" in appender.row,
    )
    try:
        shop.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
        shop.execute("SELECT pg_reload_conf()")
        slot = await standing(trigger)
        for _ in range(40):
            shop.execute(
                "INSERT INTO orders (id, name) SELECT 1, repeat('x', 1000000) "
                "ON CONFLICT (id) DO UPDATE SET name = excluded.name"
            )
            shop.execute("SELECT pg_switch_wal()")
            shop.execute("CHECKPOINT")
            slot = await standing(trigger)
            if slot.state() == "lost":
                break
        assert (slot.state(), slot.wal_status) == ("lost", "lost")
    finally:
        shop.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
        shop.execute("SELECT pg_reload_conf()")


async def test_a_database_that_is_away_is_told_and_not_waited_for() -> None:
    away = SqlTable("postgresql://nobody@127.0.0.1:1/none", "orders")
    slot = await standing(away)
    assert slot.state() == "unknown"
    assert "cannot be reached" in slot.error
