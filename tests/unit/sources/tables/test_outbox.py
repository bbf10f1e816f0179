"""Tables in SQLite: every change once, in order, whatever dies or is altered meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest

from headrace import App, Event
from headrace.environment.failpoints import LABELS
from headrace.errors import Misuse
from headrace.sources import SqlTable
from headrace.testing import World

SCHEMA = "CREATE TABLE orders (id INTEGER PRIMARY KEY, name TEXT, total REAL, raw BLOB)"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shop.db"


@pytest.fixture
def shop(path: Path) -> Iterator[apsw.Connection]:
    db = apsw.Connection(str(path))
    db.execute(SCHEMA)
    yield db
    db.close()


def listening(path: Path, table: str = "orders", **settings: Any) -> App:
    app = App("shop")
    seen = app.stream("seen")

    @app.function(SqlTable(f"sqlite:///{path}", table, **settings), output=seen)
    def note(event: Event[dict[str, Any]]) -> Any:
        return {"key": event.key, "value": event.value}

    return app


def reported(world: World) -> list[tuple[Any, ...]]:
    return [
        (one["key"], one["value"]["op"], one["value"]["before"], one["value"]["after"])
        for one in world.values("seen")
    ]


def test_rows_that_are_there_are_read_and_then_every_change_is_reported_in_order(
    path: Path, shop: apsw.Connection
) -> None:
    shop.execute("INSERT INTO orders VALUES (1, 'old', 0.1, x'00ff')")
    with World(listening(path)) as world:
        world.advance("1s")
        shop.execute("INSERT INTO orders VALUES (2, 'new', 9e999, NULL)")
        shop.execute("UPDATE orders SET total = 3.5 WHERE id = 2")
        shop.execute("DELETE FROM orders WHERE id = 1")
        world.advance("1s")
        old = {"id": 1, "name": "old", "total": 0.1, "raw": "AP8="}
        new = {"id": 2, "name": "new", "total": "inf", "raw": None}
        assert reported(world) == [
            ("1", "read", None, old),
            ("2", "insert", None, new),
            ("2", "update", new, new | {"total": 3.5}),
            ("1", "delete", old, None),
        ]
        assert world.values("seen")[1]["value"]["position"] == "2"


def test_rows_are_deleted_from_the_outbox_once_they_are_reported(
    path: Path, shop: apsw.Connection
) -> None:
    with World(listening(path, slot="mine", snapshot=False)) as world:
        world.advance("1s")
        shop.execute("INSERT INTO orders (id) VALUES (1), (2)")
        world.advance("1s")
        assert len(reported(world)) == 2
        assert shop.execute("SELECT count(*) FROM mine").get == 0


def test_what_was_rolled_back_is_not_reported(path: Path, shop: apsw.Connection) -> None:
    with World(listening(path)) as world:
        world.advance("1s")
        shop.execute("BEGIN; INSERT INTO orders (id) VALUES (1); ROLLBACK")
        shop.execute("INSERT INTO orders (id) VALUES (2)")
        world.advance("1s")
        assert [key for key, *_ in reported(world)] == ["2"]


def test_a_change_of_the_key_is_reported_under_both_keys(path: Path, shop: apsw.Connection) -> None:
    shop.execute("INSERT INTO orders (id) VALUES (1)")
    with World(listening(path, snapshot=False)) as world:
        world.advance("1s")
        shop.execute("UPDATE orders SET id = 7")
        world.advance("1s")
        assert [(key, op) for key, op, *_ in reported(world)] == [("1", "delete"), ("7", "insert")]


def test_a_column_that_is_added_is_reported_from_the_next_look_on(
    path: Path, shop: apsw.Connection
) -> None:
    with World(listening(path)) as world:
        world.advance("1s")
        shop.execute('ALTER TABLE orders ADD COLUMN "a ""quoted"" one" TEXT')
        world.advance("1s")
        shop.execute('INSERT INTO orders (id, "a ""quoted"" one") VALUES (1, \'x\')')
        world.advance("1s")
        assert reported(world)[0][3]['a "quoted" one'] == "x"


def test_what_was_written_before_a_column_was_renamed_or_added_keeps_its_value(
    path: Path, shop: apsw.Connection
) -> None:
    with World(listening(path, poll=1)) as world:
        world.advance("1s")
        shop.execute("INSERT INTO orders (id, name) VALUES (1, 'a')")
        shop.execute("ALTER TABLE orders RENAME COLUMN name TO label")
        shop.execute("INSERT INTO orders (id, label) VALUES (2, 'b')")
        shop.execute("ALTER TABLE orders ADD COLUMN note TEXT")
        shop.execute("INSERT INTO orders (id, label, note) VALUES (3, 'c', 'new')")
        world.crash("feed:before-append", 1)
        world.advance("2m")
        shop.execute("ALTER TABLE orders RENAME COLUMN id TO ident")
        shop.execute("UPDATE orders SET label = 'd', note = 'seen' WHERE ident = 2")
        world.advance("2m")
        shop.execute("DELETE FROM orders WHERE ident < 3")
        world.advance("2m")
    rows = [before if after is None else after for *_, before, after in reported(world)]
    assert [key for key, *_ in reported(world)] == ["1", "2", "3", "2", "1", "2"]
    assert [row.get("name", row.get("label")) for row in rows] == list("abcdad")
    # What nobody wrote down is left out, not reported as null.
    assert [row.get("note", "unknown") for row in rows] == ["unknown"] * 3 + ["seen", None, "seen"]
    assert [sorted(row)[0] for row in rows] == ["id", "id", "id", "id", "ident", "ident"]


def test_an_outbox_of_an_earlier_version_is_read_on(path: Path, shop: apsw.Connection) -> None:
    with World(listening(path, slot="mine")) as world:
        world.advance("1s")
        shop.execute("ALTER TABLE mine_epoch DROP COLUMN fits")
        shop.execute("INSERT INTO orders (id) VALUES (1)")
        world.advance("1s")
        assert [key for key, *_ in reported(world)] == ["1"]


def test_a_table_that_is_away_for_a_while_is_waited_for(path: Path, shop: apsw.Connection) -> None:
    with World(listening(path)) as world:
        world.advance("1s")
        shop.execute("ALTER TABLE orders RENAME TO old")
        world.advance("3s")
        trouble = world._lives.node.supervisor.sources.trouble("_shop.note.table.0")
        assert trouble is not None
        assert "has no table `orders`; create it" in trouble.error
        shop.execute("ALTER TABLE old RENAME TO orders")
        world.advance("7s")
        assert stop_of(world) == ""
        shop.execute("INSERT INTO orders (id) VALUES (1)")
        world.advance("1s")
        assert [key for key, *_ in reported(world)] == ["1"]


def test_a_text_that_is_no_utf_8_does_not_hold_up_its_followers(
    path: Path, shop: apsw.Connection
) -> None:
    with World(listening(path)) as world:
        world.advance("1s")
        shop.execute("INSERT INTO orders (id, name) VALUES (1, CAST(x'ff41' AS TEXT)), (2, 'b')")
        world.advance("1s")
        assert [row["name"] for *_, row in reported(world)] == ["\N{REPLACEMENT CHARACTER}A", "b"]


def test_a_database_that_is_busy_delays_and_doubles_nothing(
    path: Path, shop: apsw.Connection
) -> None:
    with World(listening(path)) as world:
        world.advance("1s")
        shop.execute("PRAGMA journal_mode = wal")
        shop.execute("INSERT INTO orders (id) VALUES (1)")
        shop.execute("BEGIN IMMEDIATE; INSERT INTO orders (id) VALUES (2)")
        world.advance("1s")
        assert [key for key, *_ in reported(world)] == ["1"]
        shop.execute("COMMIT")
        world.advance("1s")
        assert [key for key, *_ in reported(world)] == ["1", "2"]


def test_an_outbox_that_was_put_back_gives_its_positions_again(
    path: Path, shop: apsw.Connection
) -> None:
    with World(listening(path, slot="mine")) as world:
        world.advance("1s")
        shop.execute("INSERT INTO orders (id) VALUES (1), (2), (3)")
        world.advance("1s")
        shop.execute("UPDATE sqlite_sequence SET seq = 0 WHERE name = 'mine'")
        world.crash()
        shop.execute("INSERT INTO orders (id) VALUES (4)")
        world.advance("1s")
        assert [key for key, *_ in reported(world)] == ["1", "2", "3", "4"]


@pytest.mark.parametrize("alive", [True, False])
def test_a_count_that_is_reset_loses_and_repeats_nothing(
    path: Path, shop: apsw.Connection, *, alive: bool
) -> None:
    with World(listening(path, snapshot=False)) as world:
        world.advance("1s")
        shop.execute("INSERT INTO orders (id) VALUES (1), (2), (3)")
        world.advance("1s")
        if not alive:
            world.crash()
        shop.execute("DELETE FROM sqlite_sequence")
        shop.execute("INSERT INTO orders (id) VALUES (4)")
        world.advance("1s")
        shop.execute("INSERT INTO orders (id) VALUES (5)")
        world.advance("1s")
        assert [key for key, *_ in reported(world)] == ["1", "2", "3", "4", "5"]


def stop_of(world: World) -> str:
    trouble = world._lives.node.supervisor.sources.trouble("_shop.note.table.0")
    return "" if trouble is None else trouble.error


def replaced(path: Path, shop: apsw.Connection) -> apsw.Connection:
    """The database, after another file has taken its name."""
    shop.execute("VACUUM INTO ?", (f"{path}.next",))
    shop.close()
    path.with_name(f"{path.name}.next").rename(path)
    return apsw.Connection(str(path))


def test_a_database_that_a_copy_of_itself_replaces_is_read_on(
    path: Path, shop: apsw.Connection
) -> None:
    with World(listening(path, snapshot=False)) as world:
        world.advance("1s")
        shop.execute("INSERT INTO orders (id) VALUES (1)")
        world.advance("1s")
        shop.execute("INSERT INTO orders (id) VALUES (2)")
        shop = replaced(path, shop)
        shop.execute("INSERT INTO orders (id) VALUES (3)")
        world.advance("1s")
        assert [key for key, *_ in reported(world)] == ["1", "2", "3"]
        assert shop.execute("SELECT count(*) FROM headrace_shop_note_table_0").get == 0
    shop.close()


@pytest.mark.parametrize("alive", [True, False])
def test_a_database_that_another_replaces_is_reported_from_its_beginning(
    path: Path, shop: apsw.Connection, *, alive: bool
) -> None:
    with World(listening(path)) as world:
        world.advance("1s")
        shop.execute("INSERT INTO orders (id) VALUES (1)")
        world.advance("1s")
        if not alive:
            world.crash()
        path.unlink()
        other = apsw.Connection(str(path))
        other.execute(SCHEMA)
        other.execute("INSERT INTO orders (id) VALUES (7)")
        world.advance("1m")
        other.execute("INSERT INTO orders (id) VALUES (8)")
        world.advance("1s")
        assert [(key, op) for key, op, *_ in reported(world)] == [
            ("1", "insert"),
            ("7", "read"),
            ("8", "insert"),
        ]
        other.close()


@pytest.mark.parametrize("alive", [True, False])
@pytest.mark.parametrize("way", ["backup", "rename"])
def test_a_database_that_is_put_back_is_reported_again(
    path: Path, shop: apsw.Connection, way: str, *, alive: bool
) -> None:
    with World(listening(path)) as world:
        world.advance("1s")
        shop.execute("INSERT INTO orders (id) VALUES (1), (2)")
        world.advance("1s")
        shop.execute("VACUUM INTO ?", (f"{path}.old",))
        shop.execute("INSERT INTO orders (id) VALUES (3), (4)")
        world.advance("1s")
        if not alive:
            world.crash()
        if way == "rename":
            path.with_name(f"{path.name}.old").rename(path)
            shop = apsw.Connection(str(path))
        else:
            with apsw.Connection(f"{path}.old") as old, shop.backup("main", old, "main") as copy:
                copy.step()
        # As many as were reported: their numbers are given again.
        shop.execute("INSERT INTO orders (id) VALUES (5), (6)")
        world.advance("1m")
        shop.execute("INSERT INTO orders (id) VALUES (7)")
        world.advance("1s")
        assert [(key, op) for key, op, *_ in reported(world)] == [
            ("1", "insert"),
            ("2", "insert"),
            ("3", "insert"),
            ("4", "insert"),
            ("5", "insert"),
            ("6", "insert"),
            ("1", "read"),
            ("2", "read"),
            ("5", "read"),
            ("6", "read"),
            ("7", "insert"),
        ]


def test_a_database_that_is_put_back_halts_what_reads_changes_only(
    path: Path, shop: apsw.Connection
) -> None:
    app = listening(path, slot="mine", snapshot=False)
    with pytest.raises(AssertionError, match="stopped by"), World(app) as world:  # noqa: PT012  # it says so as it ends
        world.advance("1s")
        shop.execute("VACUUM INTO ?", (f"{path}.old",))
        shop.execute("INSERT INTO orders (id) VALUES (1)")
        world.advance("1s")
        path.with_name(f"{path.name}.old").rename(path)
        back = apsw.Connection(str(path))
        back.execute("INSERT INTO orders (id) VALUES (2)")
        world.advance("1m")
        assert "was replaced or put back to an earlier state" in stop_of(world)
        assert back.execute("SELECT count(*) FROM mine").get == 1
        back.close()


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le", "UTF-16be"])
def test_texts_are_reported_as_they_are_whatever_the_databases_encoding(
    path: Path, encoding: str
) -> None:
    shop = apsw.Connection(str(path))
    shop.execute(f"PRAGMA encoding = '{encoding}'")
    shop.execute(SCHEMA)
    shop.execute("INSERT INTO orders (id, name) VALUES (1, 'Zürich 🚲')")
    with World(listening(path)) as world:
        world.advance("1s")
        shop.execute("UPDATE orders SET name = 'Genève'")
        world.advance("1s")
        assert [row["name"] for *_, row in reported(world)] == ["Zürich 🚲", "Genève"]
    shop.close()


@pytest.mark.parametrize("key", [(), "ID"])
def test_a_column_whose_letters_change_their_case_is_reported_under_its_new_name(
    path: Path, shop: apsw.Connection, key: str | tuple[str, ...]
) -> None:
    with World(listening(path, key_columns=key)) as world:
        world.advance("1s")
        shop.execute("ALTER TABLE orders RENAME COLUMN name TO Name")
        shop.execute("ALTER TABLE orders RENAME COLUMN id TO Id")
        shop.execute("INSERT INTO orders (id, name) VALUES (1, 'before')")
        world.advance("1s")
        shop.execute("UPDATE orders SET name = 'after'")
        world.advance("1s")
        assert not stop_of(world)
        assert [(key, row.get("Name", row.get("name"))) for key, _, _, row in reported(world)] == [
            ("1", "before"),
            ("1", "after"),
        ]
        assert "Name" in reported(world)[1][3]


@pytest.mark.parametrize(
    "label", [one for one in LABELS if one.startswith(("append", "commit", "feed", "pump"))]
)
def test_a_host_that_dies_between_two_steps_neither_loses_nor_doubles_a_row(
    path: Path, shop: apsw.Connection, label: str
) -> None:
    shop.execute("INSERT INTO orders (id) VALUES (-1), (0)")
    with World(listening(path, poll=60)) as world:
        for number in range(1, 5):
            world.crash(label, number)
            shop.execute("INSERT INTO orders (id) VALUES (?)", (number,))
            world.advance("30m")  # longer than the log remembers ids
        world.run_until_idle()
        assert [int(key) for key, *_ in reported(world)] == [-1, 0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"url": "sqlite://shop.db"}, "write the database as"),
        ({"url": "mysql://x/y"}, "write the database as"),
        ({"url": "postgresql://me:secret@host/db"}, "take the password out"),
        ({"url": "postgresql://host/db?password=x"}, "take the password out"),
        ({"table": ""}, "is not a table"),
        ({"key_columns": ("",)}, "is not a column"),
        ({"slot": "My Slot"}, "a-z, 0-9"),
        ({"poll": 0}, "poll="),
    ],
)
def test_a_wrong_setting_is_refused_where_it_is_written(
    settings: dict[str, Any], says: str
) -> None:
    with pytest.raises(Misuse, match=says):
        SqlTable(**({"url": "sqlite:///shop.db", "table": "orders"} | settings))


def test_a_trigger_survives_being_written_down() -> None:
    table = SqlTable("sqlite:///shop.db", "orders", "id")
    again = msgspec.convert(msgspec.to_builtins(table), SqlTable)
    assert (again.keys, again.path) == (("id",), "shop.db")


@pytest.mark.parametrize(
    ("table", "settings", "says"),
    [
        ("loose", {}, "no primary key"),
        ("loose", {"key_columns": "wrong"}, "no columns wrong"),
    ],
)
def test_a_table_that_cannot_be_watched_is_named(
    path: Path, shop: apsw.Connection, table: str, settings: dict[str, Any], says: str
) -> None:
    shop.execute("CREATE TABLE loose (a)")
    from headrace.sources.tables.sqlite_outbox import Outbox

    trigger = SqlTable(f"sqlite:///{path}", table, **settings)
    outbox = Outbox(trigger.path, table, "mine", trigger.keys)
    with pytest.raises(Misuse, match=says):
        outbox.install(snapshot=True)
    outbox.close()
    assert shop.execute("SELECT count(*) FROM sqlite_schema WHERE name LIKE 'mine%'").get == 0


def test_a_database_that_others_write_is_read_as_soon_as_it_is_free(
    path: Path, shop: apsw.Connection
) -> None:
    with World(listening(path)) as world:
        world.advance(1)
        for n in range(3):
            shop.execute("BEGIN EXCLUSIVE")
            shop.execute("INSERT INTO orders (id) VALUES (?)", (n,))
            world.advance(4)
            assert len(reported(world)) == n
            shop.execute("COMMIT")
            # Not after the growing pauses of a source that has failed.
            world.advance(0.5)
            assert len(reported(world)) == n + 1
