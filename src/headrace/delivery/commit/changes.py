"""Conversion of a run's effects to one change of the store; the only module that knows both.

Outputs, state, dead letters, parked rows, trouble and positions are one change. It applies only if
the position rows are exactly those that this owner wrote last.
"""

from __future__ import annotations

from headrace.delivery.parked import WAITING, decode_event, lane_of, parked_key_key, parked_row_key
from headrace.delivery.positions import (
    encode_position,
    encode_trouble,
    encode_waiting,
    position_key,
)
from headrace.model.effects import Change, Check, DeadEvent, Delete, Effects, Put, RangeCheck, Space
from headrace.model.stores import StoreAddress
from headrace.storage.kv.keys import pack
from headrace.storage.state.rows import StoreRows, encode_row, rows_of, version_prefix


def change_of(
    effects: Effects, rows: dict[tuple[str, int], bytes]
) -> tuple[Change, dict[tuple[str, int], bytes]]:
    """Return the change that makes `effects` durable.

    Args:
        effects: The effects to commit.
        rows: The position rows as this owner last wrote them, by (stream, partition).

    Returns:
        The change, and the position rows after it.
    """
    checks: list[Check] = []
    puts: list[Put] = []
    deletes: list[Delete] = []
    rows_after = dict(rows) if len(rows) > len(effects.progress) else {}
    for at, progress in effects.progress.items():
        key = position_key(effects.function, at[0], at[1])
        # Byte for byte, which is stricter than the epoch: two changes of one owner that build on
        # the same row cannot both apply.
        checks.append(Check(Space.POSITIONS, key, rows[at], fence=True))
        row = encode_position(effects.epoch[at], progress)
        # An unchanged row is checked but not written: a commit of outputs alone saves the write.
        if row != rows[at]:
            puts.append(Put(Space.POSITIONS, key, row))
        rows_after[at] = row
    ranges: list[RangeCheck] = []
    if effects.reads or effects.writes:
        _stage_state(effects, checks, ranges, puts, deletes)
    for at, trouble in effects.trouble.items():
        key = position_key(effects.function, at[0], at[1])
        if trouble:
            puts.append(Put(Space.TROUBLE, key, encode_trouble(trouble)))
        else:
            deletes.append(Delete(Space.TROUBLE, key))
    if effects.dead or effects.parked or effects.unparked or effects.park_keys or effects.free_keys:
        _stage_waiting(effects, puts, deletes)
    for more in effects.extra:
        if isinstance(more, Put):
            puts.append(more)
        else:
            deletes.append(more)
    return Change(
        tuple(checks), tuple(puts), tuple(deletes), effects.appends, tuple(ranges)
    ), rows_after


def dead_row_key(event: DeadEvent) -> bytes:
    """Return the key of a dead letter's row."""
    at = event.position
    return pack(event.function, at.stream, at.partition, at.offset)


def waiting_row_key(event: DeadEvent) -> bytes:
    """Return the key of a parked event's row."""
    at = event.position
    lane = lane_of(decode_event(event.event), at.offset)
    return parked_row_key(event.function, at.stream, at.partition, lane, at.offset)


def _stage_state(
    effects: Effects,
    checks: list[Check],
    ranges: list[RangeCheck],
    puts: list[Put],
    deletes: list[Delete],
) -> None:
    stores: dict[str, StoreRows] = {}
    for read in effects.reads:
        rows = _rows(effects, read.store, stores)
        if (seen := read.seen) is not None:
            low, high = rows.range(read.key, seen.after, seen.last)
            # A range is checked by count and digest, so that a key that appeared in it since the
            # scan is noticed too.
            ranges.append(RangeCheck(rows.space, low, high, seen.count, seen.digest))
            continue
        # Only the version at the start of the row is compared: the value need not be kept for the
        # check.
        prefix = version_prefix(read.version) if read.version else None
        checks.append(Check(rows.space, rows.key(read.key), prefix))
    for write in effects.writes:
        rows = _rows(effects, write.store, stores)
        key = rows.key(write.key)
        if write.value is None:
            deletes.append(Delete(rows.space, key))
        else:
            puts.append(Put(rows.space, key, encode_row(effects.token, write.value, write.expires)))


def _rows(effects: Effects, store: str, known: dict[str, StoreRows]) -> StoreRows:
    found = known.get(store)
    if found is None:
        found = known[store] = rows_of(StoreAddress(effects.app, effects.function, store))
    return found


def _stage_waiting(effects: Effects, puts: list[Put], deletes: list[Delete]) -> None:
    puts.extend(Put(Space.DEAD, dead_row_key(dead), encode_waiting(dead)) for dead in effects.dead)
    puts.extend(
        Put(Space.PARKED, waiting_row_key(parked), encode_waiting(parked))
        for parked in effects.parked
    )
    deletes.extend(Delete(Space.PARKED, waiting_row_key(parked)) for parked in effects.unparked)
    for stream, partition, lane in effects.park_keys:
        key = parked_key_key(effects.function, stream, partition, lane)
        puts.append(Put(Space.PARKED_KEYS, key, WAITING))
    for stream, partition, lane in effects.free_keys:
        key = parked_key_key(effects.function, stream, partition, lane)
        deletes.append(Delete(Space.PARKED_KEYS, key))
