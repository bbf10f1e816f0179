"""Reads the store's rows and the log's blobs from their bytes alone.

Written from the format, not with the code that writes it: keys are text ended by 00 (an inner 00 is
00 FF) and 8-byte numbers; values are msgpack arrays.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

_decode = msgspec.msgpack.decode


class Where(NamedTuple):
    """A function's place in a partition of a stream."""

    function: str
    stream: str
    partition: int


class Given(NamedTuple):
    """A dead or parked event."""

    where: Where
    offset: int
    event: bytes
    kind: str
    attempts: int


def texts(key: bytes, count: int) -> tuple[list[str], bytes]:
    """The first `count` texts of a key, and what follows them."""
    found = []
    for _ in range(count):
        end = 0
        while True:
            end = key.index(b"\x00", end)
            if key[end + 1 : end + 2] != b"\xff":
                break
            end += 2
        found.append(key[:end].replace(b"\x00\xff", b"\x00").decode())
        key = key[end + 1 :]
    return found, key


def place(key: bytes) -> Where:
    """Whose position (or trouble) row this is."""
    (function, stream), rest = texts(key, 2)
    return Where(function, stream, int.from_bytes(rest, "big"))


def position(value: bytes) -> tuple[int, int, tuple[int, ...]]:
    """Epoch, watermark and sparse offsets."""
    epoch, watermark, runs = _decode(value)
    pairs = zip(runs[::2], runs[1::2], strict=True)
    return epoch, watermark, tuple(offset for low, high in pairs for offset in range(low, high))


def trouble(value: bytes) -> list[tuple[int, int, int]]:
    """First offset, the one after the last, and the attempts spent, of every range."""
    return [(low, high, attempts) for low, high, attempts, *_ in _decode(value)]


def given(value: bytes) -> Given:
    """A dead or parked row."""
    function, (stream, partition, offset), event, cause, attempts, *_ = _decode(value)
    return Given(Where(function, stream, partition), offset, event, cause[0], attempts)


def parked_place(key: bytes) -> tuple[Where, int]:
    """Where the event of a parked row stands; its key ends with the offset."""
    (function, stream), rest = texts(key, 2)
    where = Where(function, stream, int.from_bytes(rest[:8], "big"))
    return where, int.from_bytes(rest[-8:], "big")


def dead_place(key: bytes) -> tuple[Where, int]:
    """Where the event of a dead row stands."""
    return parked_place(key)


def state(key: bytes, value: bytes) -> tuple[str, str, object]:
    """Store, key and value of a state row; a version and an expiry stand before the value."""
    (_, store, name), _ = texts(key, 3)
    return store, name, _decode(value[16:])


def events(body: bytes) -> list[tuple[bytes, str | None]]:
    """Value and key of every event of a blob."""
    return [(event[0], event[1] if len(event) > 1 else None) for event in _decode(body)]


def looks(body: bytes) -> list[tuple[str | None, int | None, str | None, dict[str, str], Any, Any]]:
    """Key, time (µs; None for when it was appended), id, headers, type and source of every event."""
    return [
        (
            _at(event, 1),
            _at(event, 2),
            _at(event, 3),
            _at(event, 4) or {},
            _at(event, 5),
            _at(event, 6),
        )
        for event in _decode(body)
    ]


def with_headers(body: bytes) -> list[tuple[bytes, str | None, dict[str, str]]]:
    """Value, key and headers of every event of a blob."""
    return [(event[0], _at(event, 1), _at(event, 4) or {}) for event in _decode(body)]


def times(body: bytes) -> list[tuple[int, dict[str, str]]]:
    """Time (µs since the epoch) and headers of every event of a blob."""
    return [(_at(event, 2) or 0, _at(event, 4) or {}) for event in _decode(body)]


def _at(event: list[Any], place: int) -> Any:
    return event[place] if place < len(event) else None
