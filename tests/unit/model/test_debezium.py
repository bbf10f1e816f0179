"""Debezium's records, as its connectors write them, and what becomes of them."""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from typing import Any

import pytest

from headrace.model.errors import Invalid, Misuse
from headrace.model.triggers.debezium import (
    Debezium,
    DebeziumEnvelope,
    columns_key,
    open_envelope,
    record_key,
    row_change,
)

POSTGRES: dict[str, Any] = {
    "version": "2.7.0.Final",
    "connector": "postgresql",
    "name": "shop",
    "ts_ms": 1740477600000,
    "snapshot": "false",
    "db": "shop",
    "sequence": '["23456700","23456789"]',
    "schema": "public",
    "table": "orders",
    "txId": 491,
    "lsn": 23456789,
    "xmin": None,
}
MYSQL: dict[str, Any] = {
    "version": "2.7.0.Final",
    "connector": "mysql",
    "name": "shop",
    "ts_ms": 1740477600000,
    "snapshot": "false",
    "db": "inventory",
    "sequence": None,
    "table": "customers",
    "server_id": 223344,
    "gtid": None,
    "file": "mysql-bin.000003",
    "pos": 484,
    "row": 0,
    "thread": 7,
    "query": None,
}
MONGODB: dict[str, Any] = {
    "version": "2.7.0.Final",
    "connector": "mongodb",
    "name": "fulfillment",
    "ts_ms": 1558965508000,
    "snapshot": "false",
    "db": "inventory",
    "collection": "customers",
    "ord": 31,
    "rs": "rs0",
}
ROW = {"id": 1, "customer": "alice", "status": "paid"}


def envelope(
    op: str = "c",
    before: Any = None,
    after: Any = None,
    source: dict[str, Any] = POSTGRES,
    **more: Any,
) -> dict[str, Any]:
    """An envelope as the JSON converter writes it without schemas."""
    said = {"before": before, "after": after, "source": source, "op": op, "ts_ms": 1740477600123}
    return {**said, "transaction": None, **more}


def with_schema(payload: Any) -> dict[str, Any]:
    """The same with `schemas.enable=true`."""
    fields = [{"type": "struct", "optional": True, "field": "before"}]
    name = "shop.public.orders.Envelope"
    return {"schema": {"type": "struct", "fields": fields, "name": name}, "payload": payload}


def opened(record: Any, headers: dict[str, str] | None = None) -> Any:
    """Input of a handler, or the reason why there is none."""
    found = open_envelope(json.dumps(record).encode(), headers)
    return found if isinstance(found, str) else json.loads(row_change(found))


@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "with schema"])
@pytest.mark.parametrize(
    ("op", "before", "after", "change"),
    [
        ("c", None, ROW, "insert"),
        ("r", None, ROW, "read"),
        ("u", {**ROW, "status": "new"}, ROW, "update"),
        ("u", None, ROW, "update"),
        ("d", {"id": 1, "customer": None, "status": None}, None, "delete"),
        ("t", None, None, "truncate"),
    ],
)
def test_every_operation_is_reported_as_a_table_reports_it(
    op: str, before: Any, after: Any, change: str, wrapped: bool
) -> None:
    record = envelope(op, before, after)
    assert opened(with_schema(record) if wrapped else record) == {
        "op": change,
        "before": before,
        "after": after,
        "table": "public.orders",
        "position": "0/165EC15",
    }


def test_mysql_names_the_database_and_the_place_in_the_binary_log() -> None:
    change = opened(envelope("c", None, {"id": 1004}, MYSQL))
    assert (change["table"], change["position"]) == (
        "inventory.customers",
        "mysql-bin.000003/484/0",
    )


def test_a_document_of_mongodb_is_opened_out_of_its_text() -> None:
    after = '{"_id": {"$numberLong": "1004"}, "first_name": "Anne"}'
    change = opened(envelope("c", None, after, MONGODB))
    assert change["after"] == {"_id": {"$numberLong": "1004"}, "first_name": "Anne"}
    assert (change["table"], change["position"]) == ("inventory.customers", "1558965508000/31")


def test_an_update_of_mongodb_without_the_document_says_what_to_set() -> None:
    record = envelope("u", None, None, MONGODB, updateDescription={"removedFields": None})
    with pytest.raises(Invalid, match=r"capture\.mode=change_streams_update_full"):
        opened(record)


def test_a_cloud_event_in_one_piece_is_a_change() -> None:
    record = {
        "id": "name:shop;lsn:23456789;txId:491",
        "source": "/debezium/postgresql/shop",
        "specversion": "1.0",
        "type": "io.debezium.connector.postgresql.DataChangeEvent",
        "time": "2020-01-13T13:55:39.738Z",
        "datacontenttype": "application/json",
        "iodebeziumop": "u",
        "iodebeziumdb": "shop",
        "iodebeziumschema": "public",
        "iodebeziumtable": "orders",
        "iodebeziumlsn": "23456789",
        "iodebeziumxmin": None,
        "data": {"before": None, "after": ROW},
    }
    expected = {
        "op": "update",
        "before": None,
        "after": ROW,
        "table": "public.orders",
        "position": "0/165EC15",
    }
    assert opened(record) == expected
    record["data"] = with_schema(record["data"])
    assert opened(record) == expected


def test_a_cloud_event_whose_attributes_became_headers_is_a_change() -> None:
    headers = {
        "ce-id": "x",
        "ce-iodebeziumop": "d",
        "ce-iodebeziumschema": "public",
        "ce-iodebeziumtable": "orders",
        "ce-iodebeziumlsn": "23456789",
    }
    change = opened({"before": ROW, "after": None}, headers)
    assert (change["op"], change["before"], change["table"]) == ("delete", ROW, "public.orders")


@pytest.mark.parametrize(
    "given",
    [
        "__debezium_unavailable_value",
        ["__debezium_unavailable_value"],
        "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==",
    ],
)
def test_a_value_that_was_not_sent_again_is_named_and_not_made_up(given: Any) -> None:
    change = opened(envelope("u", None, {"id": 1, "note": given, "status": "paid"}))
    assert change["after"] == {"id": 1, "status": "paid"}
    assert change["unchanged"] == ["note"]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (None, "debezium/tombstone"),
        (with_schema(None), "debezium/tombstone"),
        ({"ts_ms": 1740477600123}, "debezium/heartbeat"),
        (with_schema({"ts_ms": 1740477600123}), "debezium/heartbeat"),
        (
            {
                "source": MYSQL,
                "ts_ms": 1,
                "databaseName": "inventory",
                "schemaName": None,
                "ddl": "ALTER TABLE customers ADD COLUMN x INT",
                "tableChanges": [],
            },
            "debezium/schema-change",
        ),
        (
            {
                "status": "BEGIN",
                "id": "571:53195829",
                "ts_ms": 1,
                "event_count": None,
                "data_collections": None,
            },
            "debezium/transaction",
        ),
        (
            {"status": "END", "id": "571", "event_count": 2, "data_collections": []},
            "debezium/transaction",
        ),
        (
            {
                "op": "m",
                "ts_ms": 1,
                "source": POSTGRES,
                "message": {"prefix": "foo", "content": "Ymfy"},
            },
            "debezium/message",
        ),
    ],
)
def test_records_without_a_row_are_distinguished_by_reason(record: Any, reason: str) -> None:
    assert opened(record) == reason


def test_no_value_at_all_is_a_tombstone_unless_it_was_left_behind() -> None:
    assert open_envelope(b"", None) == "debezium/tombstone"
    assert open_envelope(b"default", None) == "debezium/tombstone"
    with pytest.raises(Invalid, match="larger than an event may be"):
        open_envelope(b"", {"headrace-too-large": "2000000"})


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (b'{"id": 1, "status": "paid"}', "ExtractNewRecordState"),
        (b'{"id": 1, "status": "BEGIN", "total": 2}', "no `op`"),
        (b"{}", "no `op`"),
        (b'{"op": "x", "after": {}}', "`op` is 'x'"),
        (b'{"op": ["c"], "after": {}}', "`op` is"),
        (b'{"op": "c", "before": null}', "without `after`"),
        (b'{"op": "u", "before": {"id": 1}, "after": null}', "without `after`"),
        (b'{"op": "c", "after": 5}', "`after` is"),
        (b'{"op": "c", "after": "no json"}', "not JSON"),
        (b"\x00\x00\x00\x00\x01avro", "let the connector write JSON"),
        (b"[1, 2]", "not JSON"),
        (b'{"op": "c', "not JSON"),
        (b'{"op": "c", "after": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not JSON"),
    ],
)
def test_what_is_no_envelope_is_refused_with_the_cause(value: bytes, says: str) -> None:
    with pytest.raises(Invalid, match=says):
        open_envelope(value, None)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('{"id":1}', "1"),
        ('{"id":"A1"}', "A1"),
        ('{"schema":{"type":"struct"},"payload":{"id":1}}', "1"),
        ('{"region":"eu","id":7}', '["eu",7]'),
        ("shop.public.orders", "shop.public.orders"),
        ("{broken", "{broken"),
        ("{}", "{}"),
        (None, None),
    ],
)
def test_a_records_key_becomes_the_key_that_a_tables_event_has(
    text: str | None, key: str | None
) -> None:
    assert record_key(text) == key


def test_a_key_is_made_of_columns_of_the_row_as_it_is_or_was() -> None:
    def key(*columns: str, **record: Any) -> str | None:
        found = open_envelope(json.dumps(envelope(**record)).encode(), None)
        assert isinstance(found, DebeziumEnvelope)
        return columns_key(found, columns)

    assert key("id", op="c", after=ROW) == "1"
    assert key("customer", "id", op="c", after=ROW) == '["alice",1]'
    assert key("id", op="d", before=ROW) == "1"
    assert key("id", op="t") is None
    assert key("nothing", op="c", after=ROW) is None


def test_a_row_whose_text_is_no_unicode_gives_no_key_and_fails_where_it_is_opened() -> None:
    found = open_envelope(b'{"op": "c", "after": {"id": "\xff"}}', None)
    assert isinstance(found, DebeziumEnvelope)
    assert columns_key(found, ("id",)) is None
    with pytest.raises(UnicodeDecodeError):
        json.loads(row_change(found))


def test_a_key_that_names_no_column_is_refused() -> None:
    assert Debezium(key_columns="id").keys == ("id",)
    assert Debezium(key_columns=("a", "b")).keys == ("a", "b")
    for wrong in ("", ("a", ""), 5):
        with pytest.raises(Misuse, match=r"key_columns=[^;]*; (write|use a text)"):
            Debezium(key_columns=wrong)  # type: ignore[arg-type]  # that is the point


TEXT = "__debezium_unavailable_value"


@pytest.mark.parametrize(
    "given",
    [
        [base64.b64encode(TEXT.encode()).decode()],
        TEXT.encode().hex(),
        list(TEXT.encode()),
        [str(uuid.UUID(bytes=hashlib.md5(TEXT.encode()).digest(), version=3))],
        {TEXT: TEXT},
        json.dumps({TEXT: TEXT}, separators=(",", ":")),
        {"wkb": "AQEAACDmEAAAAAAA/IPXl8EAAAD8g9eXwQ==", "srid": 4326},
    ],
    ids=["bytea[]", "hex", "int[]", "uuid[]", "hstore", "hstore as json", "geometry"],
)
def test_every_form_of_a_value_that_was_not_sent_again_is_known(given: Any) -> None:
    change = opened(envelope("u", None, {"id": 1, "note": given, "status": "paid"}))
    assert change["after"] == {"id": 1, "status": "paid"}
    assert change["unchanged"] == ["note"]


@pytest.mark.parametrize(
    "given",
    [[95, 95, 100, 101], {TEXT: "1"}, [TEXT, "x"], f"{TEXT} ", {"wkb": "AQEAAA==", "srid": 4326}],
)
def test_a_value_that_only_resembles_one_that_was_not_sent_again_is_reported(given: Any) -> None:
    change = opened(envelope("u", None, {"id": 1, "note": given}))
    assert change["after"] == {"id": 1, "note": given}
    assert "unchanged" not in change
