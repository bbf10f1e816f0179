"""Delayed messages, as rows: each by the time it is due, and by its id. Pure.

In come appends that are for later, and ids that are taken back; out go the rows of one change. An id
is known as long as its message waits, so it names one message at most.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec.structs import replace

from headrace.model.effects import Delete, Put, Space
from headrace.model.record import Append, decode_events, encode_events
from headrace.storage.kv.change_checks import Look
from headrace.storage.kv.keys import pack

# Keys begin with the time they are due, so what is due is found by one scan from the prefix on.
BY_DUE: Final = pack("due")
MAX_ROW: Final = 64
"""Events with ids in one row: one of them is cancelled by writing the others again."""
_BY_ID: Final = "due-id"
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Append)


def due_key(due: int, taken: int, number: int, token: int) -> bytes:
    """The key under which an append waits; `due` and `taken` in microseconds since the epoch."""
    return BY_DUE + pack(due, taken, number, token)


def due_of(key: bytes) -> int:
    """The time at which the append under `key` is due, in microseconds since the epoch."""
    return int.from_bytes(key[len(BY_DUE) : len(BY_DUE) + 8], "big")


def opened(row: bytes) -> Append:
    """Decode a waiting append, with its ids."""
    return _decoder.decode(row)


def gone(key: bytes, append: Append) -> tuple[Delete, ...]:
    """The deletes that remove a row and the entries of its ids."""
    ids = [id for id in append.ids or () if id]
    keys = (key, *(_id_key(append.stream, id) for id in ids))
    return tuple(Delete(Space.TIMERS, each) for each in keys)


class WaitingMessages:
    """Changes that one `Change` makes to the rows.

    Args:
        look: The value at a key, as the changes before it will leave it.
    """

    def __init__(self, look: Look) -> None:
        self._look = look
        self._rows: dict[bytes, bytes | None] = {}

    @property
    def rows(self) -> tuple[Put | Delete, ...]:
        """The rows to write."""
        return tuple(
            Delete(Space.TIMERS, key) if value is None else Put(Space.TIMERS, key, value)
            for key, value in self._rows.items()
        )

    def keep(self, append: Append, key: bytes) -> None:
        """Let it wait under `key`. Its ids have been judged, and are not again."""
        # `later` and `kind` have done their work: the row is published as an ordinary append.
        self._rows[key] = _encoder.encode(replace(append, later=b"", kind=""))
        for id in append.ids or ():
            if id:
                self._rows[_id_key(append.stream, id)] = key

    def holds(self, stream: str, id: str) -> bool:
        """Return True while a message of that id waits."""
        return self._at(_id_key(stream, id)) is not None

    def take_back(self, stream: str, id: str) -> bool:
        """Cancel the waiting message of that id; False where there is none."""
        place = _id_key(stream, id)
        key = self._at(place)
        row = None if key is None else self._at(key)
        if key is None or row is None:
            return False
        held = opened(row)
        ids = held.ids or ()
        left = [index for index, each in enumerate(ids) if each != id]
        self._rows[place] = None
        if not left:
            self._rows[key] = None
            return True
        # Only messages with ids are split, and at most MAX_ROW share a row, so that decoding them
        # is bounded.
        events = decode_events(held.body)
        body = encode_events([events[index] for index in left])
        kept = replace(held, count=len(left), body=body, ids=tuple(ids[index] for index in left))
        self._rows[key] = _encoder.encode(kept)
        return True

    def _at(self, key: bytes) -> bytes | None:
        return self._rows[key] if key in self._rows else self._look(Space.TIMERS, key)


def _id_key(stream: str, id: str) -> bytes:
    return pack(_BY_ID, stream, id)
