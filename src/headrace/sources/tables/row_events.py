"""A row's change as an event, the same whichever database it comes from. Pure.

The value is `{"op", "before", "after", "table", "position"}`. A change of the key becomes a
`delete` under the old key and an `insert` under the new one, so that one key's events are complete.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from dataclasses import dataclass
from typing import Any

import msgspec

from headrace.model.event import Event
from headrace.model.triggers.tables import SLOT_LENGTH, Row, RowOp, SqlTable, key_of

_PLAIN = re.compile(r"_[a-z0-9]+\.[a-z0-9_]+\.[a-z]+\.[0-9]+")
"""Streams whose name stays unique with `_` between its words: the first one is the app."""


@dataclass(frozen=True, slots=True)
class RowChange:
    """A change of one row.

    Attributes:
        op: What was done.
        before: The row as it was, as far as the database reports it; None where it was not.
        after: The row as it is; None where it is no more.
        position: Where the change stands in the database's own order.
        time: When, in microseconds since the epoch; None for unknown.
        unchanged: Columns that are not in `after` since the database did not send them again.
    """

    op: RowOp
    before: Row | None
    after: Row | None
    position: str
    time: int | None = None
    unchanged: tuple[str, ...] = ()


def events_of(
    change: RowChange, *, table: str, key: tuple[str, ...], stream: str, origin: str = ""
) -> list[Event]:
    """The events of `change`: one, or two where it changed the row's key.

    `origin` distinguishes positions that a database gives more than once.
    """
    # With the time: a database that was put back gives positions again, and the log would take new
    # changes for duplicates.
    mark = f"{stream}@{origin}{change.position}@{change.time}"
    old = None if change.before is None else key_of(change.before, key)
    new = None if change.after is None else key_of(change.after, key)
    if change.op == "update" and old is not None and new is not None and old != new:
        return [
            _event("delete", change.before, None, old, change, table, stream, f"{mark}/0"),
            _event("insert", None, change.after, new, change, table, stream, f"{mark}/1"),
        ]
    name = new if new is not None else old
    return [_event(change.op, change.before, change.after, name, change, table, stream, mark)]


def plain(value: Any) -> Any:
    """A database's value as JSON can hold it: bytes as base64, numbers that are none as text."""
    match value:
        case bytes():
            return base64.b64encode(value).decode()
        # JSON has no NaN and no infinity.
        case float() if not math.isfinite(value):
            return str(value)
        case _:
            return value


def slot_of(trigger: SqlTable, stream: str) -> str:
    """The reader's name in the database: unique for each stream."""
    if trigger.slot is not None:
        return trigger.slot
    name = "headrace" + re.sub(r"[^a-z0-9_]", "_", stream.lower())
    # Cutting or replacing characters could give two streams one name, and two readers would share
    # a slot.
    if len(name) <= SLOT_LENGTH and _PLAIN.fullmatch(stream):
        return name
    digest = hashlib.blake2b(stream.encode(), digest_size=6).hexdigest()
    return f"{name[: SLOT_LENGTH - 13]}_{digest}"


def _event(
    op: RowOp,
    before: Row | None,
    after: Row | None,
    key: str | None,
    change: RowChange,
    table: str,
    stream: str,
    mark: str,
) -> Event:
    value: dict[str, Any] = {
        "op": op,
        "before": before,
        "after": after,
        "table": table,
        "position": change.position,
    }
    if change.unchanged and after is not None:
        value["unchanged"] = change.unchanged
    return Event(
        msgspec.json.encode(value),
        key=key,
        time=change.time,
        id=mark,
        type=f"headrace.table.{op}",
        source=stream,
    )
