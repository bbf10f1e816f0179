"""The lease table: for each message of a queue its consumer, the lease's end and the outcome.

One row per message that was given out, fenced by its receipt: what a consumer says about a message
is written only while the row still holds its receipt, and is durable before it is answered. Rows of
messages that are finished are swept away.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from headrace.model.effects import Change, Check, Delete, Put, Space
from headrace.model.errors import Conflict, Corrupt, Fenced, Invalid
from headrace.model.record import Position
from headrace.storage.kv.base import Storage, scan_pages
from headrace.storage.kv.keys import after, pack

PAGE = 1_000

Stand = Literal["leased", "acknowledged", "refused", "lapsed"]


class Lease(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A message that was given out.

    Attributes:
        receipt: What its consumer shows to say something about it.
        attempt: Which time it was given out, from 1.
        until: When it is given out again, in microseconds since the epoch.
        stand: `leased`, what its consumer said, or `lapsed` where it said nothing in time.
        delay: Seconds before a refused message may be given out again.
        reason: Why it was refused.
    """

    receipt: str
    attempt: int
    until: int
    stand: Stand = "leased"
    delay: float = 0.0
    reason: str = ""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Lease)


class Leases:
    """The rows of every queue. Used by one node's event loop."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def get(self, group: str, at: Position) -> Lease | None:
        """The message's lease, or None where it was never given out."""
        row = await self._storage.get(Space.META, lease_key(group, at))
        return None if row is None else _decoded(row)

    async def change(self, group: str, at: Position, old: Lease | None, new: Lease) -> bool:
        """Write that the message was given out, or what became of it; False where it is not `old`.

        Raises:
            DiskFull, Overloaded, Unavailable: As `Storage.apply`.
        """
        key = lease_key(group, at)
        # The whole row is compared: a receipt of an earlier lease, or a second answer to this one,
        # is refused.
        check = Check(Space.META, key, None if old is None else _encoder.encode(old))
        put = Put(Space.META, key, _encoder.encode(new))
        try:
            await self._storage.apply(Change(checks=(check,), puts=(put,)))
        # Not an error of the caller: the lease was given out again meanwhile, and its new holder
        # decides.
        except (Conflict, Fenced):
            return False
        return True

    async def all(self, group: str) -> list[tuple[Position, Lease]]:
        """Every row of a queue's consumers."""
        prefix = pack("lease", group)
        found: list[tuple[Position, Lease]] = []
        async for page in scan_pages(self._storage, Space.META, prefix, after(prefix), limit=PAGE):
            for key, row in page:
                # A stream's name holds no zero byte (see `catalog`), so the first one ends it.
                stream, _, place = key[len(prefix) :].partition(b"\x00")
                at = Position(
                    stream.decode(),
                    int.from_bytes(place[:8], "big"),
                    int.from_bytes(place[8:], "big"),
                )
                found.append((at, _decoded(row)))
        return found

    async def forget(self, group: str, finished: list[Position]) -> None:
        """Remove the rows of messages that are finished."""
        # In pages: a change is one transaction, and must not hold up others for all rows of a
        # queue.
        for start in range(0, len(finished), PAGE):
            deletes = tuple(
                Delete(Space.META, lease_key(group, at)) for at in finished[start : start + PAGE]
            )
            await self._storage.apply(Change(deletes=deletes))


async def lease_keys(storage: Storage, group: str, stream: str, partition: int) -> list[bytes]:
    """The keys of a partition's leases, in `Space.META`."""
    prefix, found = pack("lease", group, stream, partition), list[bytes]()
    async for page in scan_pages(storage, Space.META, prefix, after(prefix), limit=PAGE):
        found += (key for key, _ in page)
    return found


def receipt_of(at: Position, attempt: int, token: int) -> str:
    """The receipt that a consumer gets with a message."""
    return f"{at}/{attempt}/{token:x}"


def place_of(receipt: str) -> Position:
    """The message a receipt is about.

    Raises:
        Invalid: It is none.
    """
    # From the right, since a stream's name is the only part of unknown form. Receipts come from
    # outside: the bound on digits keeps `int` cheap and offsets within 63 bits.
    parts = receipt.rsplit("/", 4)
    if len(parts) != 5 or not all(p.isascii() and p.isdigit() and len(p) < 19 for p in parts[1:4]):
        raise Invalid(
            f"`{receipt}` is not a receipt; send back what `receive` gave with the message"
        )
    return Position(parts[0], int(parts[1]), int(parts[2]))


def lease_key(group: str, at: Position) -> bytes:
    """The key of a message's lease, in `Space.META`."""
    return pack("lease", group, at.stream, at.partition, at.offset)


def _decoded(row: bytes) -> Lease:
    try:
        return _decoder.decode(row)
    except msgspec.DecodeError as error:
        raise Corrupt(f"a lease is unreadable: {error}") from error
