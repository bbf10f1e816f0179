"""How a function's state rests in the store: one row a key, with its version in front.

The version is the token of the invocation that wrote it, so that a commit can check by prefix that
what it read is still so, and an instance knows the version of its own writes before they land.
"""

from __future__ import annotations

import struct

from headrace.model.errors import Corrupt
from headrace.model.policy import RESERVED_STATE
from headrace.storage.kv.keys import after, pack

_head = struct.Struct(">QQ")


def state_key(app: str, key: str) -> bytes:
    """Where the app keeps `key`; what the platform keeps for it is not among the author's keys."""
    if key[:1] == RESERVED_STATE:
        return pack(RESERVED_STATE + app, key[1:])
    return pack(app, key)


def state_prefix(app: str, prefix: str) -> bytes:
    """What the rows of the app's keys begin with that begin with `prefix`."""
    return state_key(app, prefix)[:-1]


def state_name(app: str, packed: bytes) -> str:
    """The key of a packed one; the inverse of `state_key`."""
    own, front = pack(app), ""
    if not packed.startswith(own):
        own, front = pack(RESERVED_STATE + app), RESERVED_STATE
    return front + packed[len(own) : -1].replace(b"\x00\xff", b"\x00").decode()


def range_of(app: str, prefix: str, last: str | None = None) -> tuple[bytes, bytes | None]:
    """From which key on the app keeps what starts with `prefix`, and before which: up to `last`."""
    low = state_prefix(app, prefix)
    return low, after(low) if last is None else state_key(app, last) + b"\x00"


def version_prefix(version: int) -> bytes:
    """What a row of this version starts with."""
    return version.to_bytes(8, "big")


def encode_row(version: int, value: bytes, expires: int) -> bytes:
    """A row; `expires` in microseconds since the epoch, 0 for never."""
    return _head.pack(version, expires) + value


def decode_row(row: bytes) -> tuple[int, int, bytes]:
    """Version, expiry and value of a row.

    Raises:
        Corrupt: The row is too short to be one.
    """
    if len(row) < _head.size:
        raise Corrupt(f"a state row of {len(row)} bytes is shorter than its own head")
    version, expires = _head.unpack_from(row)
    return version, expires, row[_head.size :]
