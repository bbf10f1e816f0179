"""The rows of a store's values: one a key, with its version in front.

The version is the token of the invocation that wrote it, so that a commit can check by prefix that
what it read is still so, and an instance knows the version of its own writes before they land.

A row's key is app, store and key; the store that belongs to one function is named as the function is,
with a dot, which no other store's name has. What the platform keeps for a function has a space of its
own, so no name or key that an author can write leads there.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from headrace.model.effects import Space
from headrace.model.errors import Corrupt
from headrace.model.stores import WINDOWS, StoreAddress
from headrace.storage.kv.keys import after, pack

# Version first: `Check` compares a prefix of the row, so a commit can check the version alone.
# Big-endian, as in `version_prefix`.
_head = struct.Struct(">QQ")


class StoreRows(NamedTuple):
    """The place of one store's rows: their space, and the prefix of their keys."""

    space: Space
    prefix: bytes

    def key(self, key: str) -> bytes:
        """The key of the row that holds `key`."""
        return self.prefix + pack(key)

    def name(self, packed: bytes) -> str:
        """The key that a row holds; the inverse of `key`."""
        # The inverse of `pack`: the final zero byte goes, escaped ones come back.
        return packed[len(self.prefix) : -1].replace(b"\x00\xff", b"\x00").decode()

    def range(
        self, prefix: str = "", begin: str = "", last: str | None = None
    ) -> tuple[bytes, bytes | None]:
        """From which row on, and before which, the keys are that start with `prefix`.

        Args:
            prefix: What they start with.
            begin: Only those behind this key.
            last: Only those up to this key; None: all.
        """
        # Without the final zero byte: the packed text then is a prefix of every longer key.
        low = whole = self.key(prefix)[:-1]
        if begin:
            low = max(low, self.key(begin) + b"\x00")
        return low, after(whole) if last is None else self.key(last) + b"\x00"


def rows_of(address: StoreAddress) -> StoreRows:
    """The rows of a store."""
    # Windows have a separate space: no name that an author chooses leads there.
    if address.store == WINDOWS:
        return StoreRows(Space.WINDOWS, pack(address.app, address.function))
    return StoreRows(Space.STATE, pack(address.app, address.name))


def version_prefix(version: int) -> bytes:
    """The first bytes of a row of this version."""
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
