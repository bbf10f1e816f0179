"""`changes=Debezium()`: row changes that somebody else captured, handed over as a table's are."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headrace import App, Batch, Context, Event, Retry
from headrace.errors import Misuse
from headrace.sources import Debezium, KafkaTopic, SqlTable
from headrace.testing import World


class Order(msgspec.Struct):
    id: int
    total: float


class Change(msgspec.Struct):
    op: str
    before: Order | None
    after: Order | None


def record(op: str, number: int, total: float | None, before: float | None = None) -> Any:
    """An envelope about order `number`."""
    return {
        "op": op,
        "before": None if before is None else {"id": number, "total": before},
        "after": None if total is None else {"id": number, "total": total},
        "source": {"connector": "postgresql", "schema": "public", "table": "orders", "lsn": 5},
    }


def key(number: int) -> str:
    """The key Debezium gives its record of order `number`."""
    return f'{{"id":{number}}}'


def test_a_typed_row_is_handed_over_under_the_key_of_a_table() -> None:
    app = App("shop")
    captured, told = app.stream("captured"), app.stream("told")

    @app.function(captured.read(changes=Debezium()), output=told)
    def tell(event: Event[Change]) -> list[Any]:
        after = event.value.after
        return [[event.key, event.value.op, None if after is None else after.total]]

    with World(app) as world:
        world.publish("captured", record("c", 1, 2.5), key=key(1))
        world.publish("captured", record("d", 1, None, 2.5), key=key(1))
        world.publish("captured", None, key=key(1))
        world.publish("captured", {"ts_ms": 1740477600123}, key='{"serverName":"shop"}')
        world.run_until_idle()
        assert world.values("told") == [["1", "insert", 2.5], ["1", "delete", None]]
        assert world.left_out("shop.tell") == {"debezium/tombstone": 1, "debezium/heartbeat": 1}
        world.assert_exactly_once("told")


def test_one_handler_serves_a_table_and_a_stream_of_changes(tmp_path: Path) -> None:
    app = App("shop")
    captured, told = app.stream("captured"), app.stream("told")

    @app.function(
        captured.read(changes=Debezium()),
        SqlTable(f"sqlite:///{tmp_path / 'shop.db'}", "orders"),
        output=told,
    )
    def tell(event: Event[Change]) -> Any:
        return [[event.key, event.value.op]]

    with closing(sqlite3.connect(tmp_path / "shop.db", isolation_level=None)) as shop:
        shop.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, total REAL)")
        shop.execute("INSERT INTO orders VALUES (1, 5.0)")
    with World(app) as world:
        world.publish("captured", record("c", 2, 7.5), key=key(2))
        world.advance("1s")
        assert sorted(world.values("told")) == [["1", "read"], ["2", "insert"]]


def test_a_broken_envelope_is_given_up_at_once_and_is_a_dead_letter_as_it_came() -> None:
    app = App("shop")
    captured, told = app.stream("captured"), app.stream("told")

    @app.function(captured.read(changes=Debezium()), output=told, retry=Retry(attempts=2))
    def tell(events: Batch[Change]) -> list[Any]:
        return [[event.value.op] for event in events]

    with World(app) as world:
        world.publish("captured", record("c", 1, 2.5), key=key(1))
        world.publish("captured", {"id": 2, "total": 7.5}, key=key(2))
        world.publish("captured", record("c", 3, 1.5), key=key(3))
        world.run_until_idle()
        (dead,) = world.dead_letters()
        assert dead.cause.kind == "Undecodable"
        assert "ExtractNewRecordState" in dead.cause.message
        assert dead.attempts == 1
        assert b'{"id":2,"total":7.5}' in dead.event
        assert world.values("told") == [["insert"], ["insert"]]


def test_records_without_a_key_are_kept_in_order_per_row_by_its_columns() -> None:
    app = App("shop")
    captured = app.stream("captured")
    seen: list[tuple[str | None, float]] = []

    @app.function(
        captured.read(changes=Debezium(key_columns="id")),
        order="key",
        parallelism=4,
        batch_size=1,
        retry=Retry(initial_delay=5.0, max_delay=5.0, jitter=False),
    )
    def tell(event: Event[Change], context: Context) -> None:
        assert event.value.after is not None
        if event.key == "1" and context.attempt == 1 and event.value.after.total == 0.0:
            raise RuntimeError("not now")
        seen.append((event.key, event.value.after.total))

    with World(app) as world:
        for total in range(3):
            for number in (1, 2):
                world.publish("captured", record("u", number, float(total)))
        world.run_until_idle()
    # Row 2 goes on while row 1 waits, and neither's changes overtake each other.
    assert seen[:3] == [("2", 0.0), ("2", 1.0), ("2", 2.0)]
    assert seen[3:] == [("1", 0.0), ("1", 1.0), ("1", 2.0)]


def test_a_crash_repeats_and_loses_no_change() -> None:
    app = App("shop")
    captured, told = app.stream("captured"), app.stream("told")

    @app.function(
        captured.read(changes=Debezium(key_columns="id")), output=told, order="key", parallelism=2
    )
    def tell(event: Event[Change]) -> Any:
        return event.key

    with World(app) as world:
        for number in range(20):
            world.publish("captured", record("c", number, 1.0))
            world.publish("captured", None)
            if number % 7 == 3:
                world.crash()
        world.run_until_idle()
        assert sorted(world.values("told"), key=int) == [str(number) for number in range(20)]


def test_a_pattern_is_put_to_the_record_as_it_came() -> None:
    app = App("shop")
    captured, told = app.stream("captured"), app.stream("told")

    @app.function(captured.read(changes=Debezium(), pattern={"value": {"op": ["d"]}}), output=told)
    def tell(event: Event[Change]) -> Any:
        return event.value.op

    with World(app) as world:
        world.publish("captured", record("c", 1, 2.5), key=key(1))
        world.publish("captured", record("d", 1, None, 2.5), key=key(1))
        world.run_until_idle()
        assert world.values("told") == ["delete"]


def test_changes_are_read_from_one_source_and_values_from_another() -> None:
    app = App("shop")
    with pytest.raises(Misuse, match=r"call it\); use `changes=Debezium"):

        @app.function(app.stream("captured").read(changes=Debezium))  # type: ignore[arg-type]
        def uncalled(event: Event[Change]) -> None: ...

    @app.function(KafkaTopic("shop.public.orders", changes=Debezium()), app.stream("plain"))
    def from_kafka(event: Event[Change]) -> None: ...

    spec = app.functions["shop.from_kafka"].spec
    assert spec.change_streams == {"_shop.from_kafka.kafka.0": Debezium()}
