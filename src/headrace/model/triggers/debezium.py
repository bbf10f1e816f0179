"""Row changes as Debezium writes them, opened into the value that our own table triggers give.

In: a record's bytes and headers. Out: the JSON of `{"op", "before", "after", "table", "position"}`,
or why the record is not about a row (a tombstone, a heartbeat, ...). Read are the JSON envelopes of
Debezium's connectors, with and without `schema`/`payload` around them, and its CloudEvents. What is
none of these is refused, never passed over. Pure.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec.structs import force_setattr

from headrace.model.errors import Invalid, Misuse
from headrace.model.policy_struct import PolicyStruct
from headrace.model.triggers.tables import RowOp, key_of

NO_CHANGE: Final = "debezium/"
"""Beginnings of the reasons why a record is not about a row."""
TOMBSTONE: Final = "debezium/tombstone"
HEARTBEAT: Final = "debezium/heartbeat"
SCHEMA_CHANGE: Final = "debezium/schema-change"
TRANSACTION: Final = "debezium/transaction"
MESSAGE: Final = "debezium/message"

OPS: Final[Mapping[str, RowOp]] = {
    "r": "read",
    "c": "insert",
    "u": "update",
    "d": "delete",
    "t": "truncate",
}

_UNAVAILABLE: Final = "__debezium_unavailable_value"
_TEXTS: Final = (
    _UNAVAILABLE,
    # As bytes, by `binary.handling.mode`.
    base64.b64encode(_UNAVAILABLE.encode()).decode(),
    _UNAVAILABLE.encode().hex(),
    # As an hstore that is written as JSON.
    f'{{"{_UNAVAILABLE}":"{_UNAVAILABLE}"}}',
)
_UUID: Final = "b68a35a7-17ad-35b3-af2a-ae46edb4545a"
"""The name-based UUID (version 3, without a namespace) of the text."""
_POINTS: Final = tuple(
    base64.b64encode(bytes.fromhex(wkb)).decode()
    for wkb in (
        "0101000020E6100000000000FC83D797C1000000FC83D797C1",
        "0101000020E61000000C21E7FDFF7F66401842CEFBFF7F5640",
    )
)
"""A geometry and a geography that are nowhere."""
_ABSENT: Final[tuple[Any, ...]] = (
    *_TEXTS,
    *([text] for text in _TEXTS),
    list(_UNAVAILABLE.encode()),
    [_UUID],
    {_UNAVAILABLE: _UNAVAILABLE},
)
"""What Debezium writes in place of values it was not sent again, as text, bytes, arrays and maps."""
_MAY_BE_ABSENT: Final = re.compile(
    "|".join((*map(re.escape, (*_TEXTS[:3], _UUID, *_POINTS)), r"95,\s*95,\s*100,\s*101")).encode()
)
_EMPTY: Final = frozenset({b"", b"null", b"default"})
"""No value; `default` is what Debezium's sink for Redis writes in its place."""
_TOO_LARGE: Final = "headrace-too-large"
_EXTENSION: Final = "iodebezium"
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_TRANSACTION: Final = frozenset({"status", "id", "ts_ms", "event_count", "data_collections"})
_BOUNDARIES: Final = (b'"BEGIN"', b'"END"')
_NULL: Final = msgspec.Raw(b"null")

_members_of = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_plain = msgspec.json.decode
Members = Mapping[str, msgspec.Raw]


class Debezium(PolicyStruct, frozen=True, tag="debezium"):
    """Row changes as Debezium writes them: the format of what a function reads.

    Attributes:
        key_columns: The columns that name a row, where the records' own keys do not: an event's key is
            then made of them. None takes the key of the record.
    """

    key_columns: str | tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Keep the key as a tuple.

        Raises:
            Misuse: It names no column.
        """
        key: Any = self.key_columns
        names = (key,) if isinstance(key, str) else key
        if not isinstance(names, (tuple, list)) or not all(
            isinstance(name, str) and name for name in names
        ):
            raise Misuse(
                f'`Debezium(key_columns={key!r})` is not a column; write `key_columns="id"`'
            )
        force_setattr(self, "key_columns", tuple(names))

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns of the key, as they were given."""
        return self.key_columns if isinstance(self.key_columns, tuple) else (self.key_columns,)


class DebeziumEnvelope(msgspec.Struct, frozen=True):
    """One change of one row.

    Attributes:
        op: What was done.
        before: The row as it was, as JSON; `null` where it did not exist, or is not in the record.
        after: The row as it is, as JSON; `null` where it was deleted.
        source: Where the change stands, as the connector says.
    """

    op: RowOp
    before: msgspec.Raw
    after: msgspec.Raw
    source: Mapping[str, Any]


def open_envelope(value: bytes, headers: Mapping[str, str] | None) -> DebeziumEnvelope | str:
    """Read the change in a record, or the reason why there is none.

    Raises:
        Invalid: It is not a record of Debezium's; the message says why and what to change.
    """
    try:
        return _read(value, headers or {})
    except _UNREADABLE as error:
        raise Invalid(
            f"the record is not JSON of Debezium's ({error}); let the connector write JSON, with "
            "`value.converter` or `format.value`"
        ) from error


def _read(value: bytes, headers: Mapping[str, str]) -> DebeziumEnvelope | str:
    if value.strip() in _EMPTY:
        if _TOO_LARGE in headers:
            raise Invalid("the change was larger than an event may be, and came without its value")
        return TOMBSTONE
    members = _members_of(value)
    source: Mapping[str, Any] | None = None
    op: Any = None
    if "specversion" in members and "data" in members:
        said = {name: _plain(raw) for name, raw in members.items() if name.startswith(_EXTENSION)}
        source, op = _attributes(said), said.get(f"{_EXTENSION}op")
        members = _members_of(members["data"])
    elif f"ce-{_EXTENSION}op" in headers:
        source = _attributes({name.removeprefix("ce-"): text for name, text in headers.items()})
        op = headers[f"ce-{_EXTENSION}op"]
    if members.keys() == {"schema", "payload"}:
        if bytes(members["payload"]) == b"null":
            return TOMBSTONE
        members = _members_of(members["payload"])
    if op is None:
        if "op" not in members:
            return _without_op(members)
        op = _plain(members["op"])
    if op == "m":
        return MESSAGE
    if not isinstance(op, str) or op not in OPS:
        raise Invalid(f"`op` is {op!r}; Debezium writes `c`, `u`, `d`, `r`, `t` or `m`")
    if source is None:
        found = _plain(members.get("source", _NULL))
        source = found if isinstance(found, dict) else {}
    return _envelope(OPS[op], members, source)


def row_change(envelope: DebeziumEnvelope) -> bytes:
    """The value a handler is given, as JSON: the same that a `SqlTable` gives."""
    after, unchanged = _known(envelope.after)
    value: dict[str, Any] = {
        "op": envelope.op,
        "before": _known(envelope.before)[0],
        "after": after,
        "table": _table(envelope.source),
        "position": _position(envelope.source),
    }
    if unchanged:
        value["unchanged"] = unchanged
    return msgspec.json.encode(value)


def columns_key(envelope: DebeziumEnvelope, columns: tuple[str, ...]) -> str | None:
    """The key of the changed row by its columns; None where the record has none (a `truncate`)."""
    for side in (envelope.after, envelope.before):
        try:
            row = _plain(side)
        except _UNREADABLE:
            # It fails where the function opens it.
            return None
        if row is not None and (found := key_of(row, columns)) is not None:
            return found
    return None


def record_key(text: str | None) -> str | None:
    """A record's key as a table's event has it: the one column's value, or an array of several.

    What is not a JSON object (a subject, a routing key) stays as it is.
    """
    if text is None or not text.startswith("{"):
        return text
    try:
        row = _plain(text)
        if row.keys() == {"schema", "payload"}:
            row = row["payload"]
    except (*_UNREADABLE, AttributeError):
        return text
    if not isinstance(row, dict) or not row:
        return text
    return key_of(row, tuple(row))


def _without_op(members: Members) -> str:
    """Name which of Debezium's other records it is."""
    names = members.keys()
    if names and names <= {"ts_ms", "ts_us", "ts_ns"}:
        return HEARTBEAT
    if names & {"ddl", "tableChanges"} and "source" in names:
        return SCHEMA_CHANGE
    if {"status", "id"} <= names <= _TRANSACTION and bytes(members["status"]) in _BOUNDARIES:
        return TRANSACTION
    raise Invalid(
        "the record has no `op` field, so it is not a change event; if the connector removes the "
        "envelope (`ExtractNewRecordState`), leave that transform out"
    )


def _envelope(op: RowOp, members: Members, source: Mapping[str, Any]) -> DebeziumEnvelope:
    before, after = _row("before", members), _row("after", members)
    if op in {"read", "insert", "update"} and bytes(after) == b"null":
        fix = (
            "; let the connector send whole documents (`capture.mode=change_streams_update_full`)"
            if "updateDescription" in members
            else ""
        )
        raise Invalid(f"an `{op}` without `after` does not say what the row is{fix}")
    return DebeziumEnvelope(op, before, after, source)


def _row(name: str, members: Members) -> msgspec.Raw:
    """One side of a change; MongoDB's documents are JSON in a text."""
    raw = members.get(name, _NULL)
    head = bytes(raw)[:1]
    if head == b'"':
        raw = msgspec.Raw(_plain(raw, type=str).encode())
        _members_of(raw)
    elif head not in {b"{", b"n"}:
        raise Invalid(f"`{name}` is {bytes(raw)[:40]!r}, not a row")
    return raw


def _known(row: msgspec.Raw) -> tuple[msgspec.Raw | Members, list[str]]:
    """The row without the columns the database did not send again, and those."""
    if _MAY_BE_ABSENT.search(bytes(row)) is None:
        return row, []
    columns = _members_of(row)
    absent = [name for name, value in columns.items() if _is_absent(_plain(value))]
    return {name: value for name, value in columns.items() if name not in absent}, absent


def _is_absent(value: Any) -> bool:
    if isinstance(value, dict) and "wkb" in value:
        return value["wkb"] in _POINTS
    return value in _ABSENT


def _attributes(said: Mapping[str, Any]) -> dict[str, Any]:
    """A CloudEvent's attributes under the names they have in `source`."""
    return {
        name.removeprefix(_EXTENSION): value
        for name, value in said.items()
        if name.startswith(_EXTENSION)
    }


def _table(source: Mapping[str, Any]) -> str:
    name = source.get("table") or source.get("collection") or ""
    within = source.get("schema") or source.get("db")
    return f"{within}.{name}" if within and name else str(name)


def _position(source: Mapping[str, Any]) -> str:
    """Position of the change in its database's own order, as that database writes it."""
    lsn = source.get("lsn")
    if isinstance(lsn, str) and lsn.isdecimal():
        lsn = int(lsn)
    if isinstance(lsn, int):
        return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"
    for names in (
        ("file", "pos", "row"),
        ("commit_lsn", "change_lsn", "event_serial_no"),
        ("scn", "ssn"),
        ("ts_ms", "ord"),
        ("tsms", "ord"),
    ):
        if source.get(names[0]) is not None:
            return "/".join(str(source[name]) for name in names if source.get(name) is not None)
    return ""
