"""Messages that wait for their time, as rows: each by when it is due, and by its id. Pure.

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

BY_DUE: Final = pack("due")
MAX_ROW: Final = 64
"""Events with ids in one row: one of them is taken back by writing the others anew."""
_BY_ID: Final = "due-id"
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Append)


def due_key(due: int, taken: int, number: int, token: int) -> bytes:
    """Where an append waits; `due` and `taken` in microseconds since the epoch."""
    return BY_DUE + pack(due, taken, number, token)


def due_of(key: bytes) -> int:
    """When what waits there is due, in microseconds since the epoch."""
    return int.from_bytes(key[len(BY_DUE) : len(BY_DUE) + 8], "big")


def opened(row: bytes) -> Append:
    """What waits, with its ids."""
    return _decoder.decode(row)


def gone(key: bytes, append: Append) -> tuple[Delete, ...]:
    """What is deleted with a row."""
    ids = [id for id in append.ids or () if id]
    keys = (key, *(_id_key(append.stream, id) for id in ids))
    return tuple(Delete(Space.TIMERS, each) for each in keys)


class WaitingMessages:
    """What one change does to the rows.

    Args:
        look: The value at a key, as the changes before it will leave it.
    """

    def __init__(self, look: Look) -> None:
        self._look = look
        self._rows: dict[bytes, bytes | None] = {}

    @property
    def rows(self) -> tuple[Put | Delete, ...]:
        """What is to be written."""
        return tuple(
            Delete(Space.TIMERS, key) if value is None else Put(Space.TIMERS, key, value)
            for key, value in self._rows.items()
        )

    def keep(self, append: Append, key: bytes) -> None:
        """Let it wait under `key`. Its ids have been judged, and are not again."""
        self._rows[key] = _encoder.encode(replace(append, later=b"", kind=""))
        for id in append.ids or ():
            if id:
                self._rows[_id_key(append.stream, id)] = key

    def holds(self, stream: str, id: str) -> bool:
        """Whether a message of that id waits."""
        return self._at(_id_key(stream, id)) is not None

    def take_back(self, stream: str, id: str) -> bool:
        """Let the message of that id wait no more; False where none does."""
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
        events = decode_events(held.body)
        body = encode_events([events[index] for index in left])
        kept = replace(held, count=len(left), body=body, ids=tuple(ids[index] for index in left))
        self._rows[key] = _encoder.encode(kept)
        return True

    def _at(self, key: bytes) -> bytes | None:
        return self._rows[key] if key in self._rows else self._look(Space.TIMERS, key)


def _id_key(stream: str, id: str) -> bytes:
    return pack(_BY_ID, stream, id)
