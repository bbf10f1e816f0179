"""Requests that come again under an idempotency key: known by what they were, and run one at a time.

In: the mark of a key, and a digest of the whole request. Out: what was answered to it before, or leave
to go on. A key that comes back with another request is refused, for one of the two would be lost
unseen; so is a repetition while the first is still being answered, for nothing waits here unseen.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Final

import msgspec

from headrace.delivery.commit.committer import Committer
from headrace.delivery.publisher import Publisher
from headrace.environment.clock import Clock
from headrace.environment.randomness import Entropy
from headrace.model.effects import Change, Check, Put, Space
from headrace.model.errors import Conflict, Misuse, Unavailable
from headrace.model.event import Event
from headrace.model.record import Position
from headrace.storage.log.base import Broker
from headrace.storage.state.rows import decode_row, encode_row

TRIES: Final = 5
DIGEST_BYTES: Final = 16
LOOKED: Final = 1_000
"""Events among which a kept request is looked for."""
# No answer begins so: JSON does not, and a reply is marked otherwise.
_SEALED: Final = b"\x02"


class KeyReused(Misuse):
    """An idempotency key was used before, for another request."""

    code: ClassVar[str] = "key-reused"

    def __init__(self) -> None:
        super().__init__(
            "this `Idempotency-Key` came before with another request; make a new key for each "
            "request, and send the same one only with the same request again"
        )


class UnderWay(Unavailable):
    """A request with the same idempotency key is being answered now."""

    code: ClassVar[str] = "under-way"

    def __init__(self) -> None:
        super().__init__(
            "the request with this `Idempotency-Key` is still being answered; ask again for its "
            "answer"
        )


class KeyTurns:
    """The requests with a key that are being answered, by their marks. One per node.

    Holds no more than there are requests.
    """

    def __init__(self) -> None:
        self._digests: dict[bytes, bytes] = {}

    @contextmanager
    def take(self, mark: bytes, digest: bytes) -> Iterator[None]:
        """Be the one that is answered.

        Raises:
            UnderWay: It is being answered already.
            KeyReused: Another one is.
        """
        if (other := self._digests.get(mark)) is not None:
            check_same(other, digest)
            raise UnderWay
        self._digests[mark] = digest
        try:
            yield
        finally:
            del self._digests[mark]


def check_same(known: bytes, digest: bytes) -> None:
    """Pass, where both are the same request, or one is not known.

    Raises:
        KeyReused: They are not.
    """
    if known and digest and known != digest:
        raise KeyReused


def sealed(digest: bytes, answer: bytes) -> bytes:
    """An answer as it is remembered, with what was asked."""
    return _SEALED + digest + answer if digest else answer


def opened(kept: bytes, digest: bytes) -> bytes:
    """The answer to the request.

    Raises:
        KeyReused: It was another request that was answered.
    """
    if not kept.startswith(_SEALED):
        return kept
    end = len(_SEALED) + DIGEST_BYTES
    check_same(kept[len(_SEALED) : end], digest)
    return kept[end:]


class _KeptRequest(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What was asked, and where in the log it stands: at `low` or soon after."""

    digest: bytes
    partition: int
    low: int


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_KeptRequest)


class RequestRecorder:
    """Keeps requests in the log, each key's once. Holds nothing; made for one request.

    The mark lands in the change that appends the event, so no crash parts the two.
    """

    def __init__(
        self,
        publisher: Publisher,
        *,
        committer: Committer,
        broker: Broker,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self._publisher = publisher
        self._committer = committer
        self._storage = committer.storage
        self._broker = broker
        self._clock = clock
        self._entropy = entropy

    async def keep(
        self, stream: str, event: Event, *, mark: bytes, digest: bytes, seconds: float, origin: str
    ) -> tuple[Position | None, bool]:
        """Where the request stands (None where that is not known any more), and whether it did before.

        Args:
            stream: Where it is kept.
            event: The request; its id is the key's.
            mark: Under which the key is remembered.
            digest: Of the whole request.
            seconds: How long the key is remembered.
            origin: The root of its chain of causes.

        Raises:
            KeyReused: Another request was kept under the key.
            Conflict: Too many with the same key came at once.
            Invalid, TooLarge, DiskFull, Overloaded, Unavailable: As `Publisher.publish`.
        """
        for _ in range(TRIES):
            row = await self._storage.get(Space.MARKS, mark)
            if (known := self._known(row)) is not None:
                check_same(known.digest, digest)
                return await self._found(stream, event.id, known), True
            (append,) = self._publisher.bound(stream, [event], hops=1, origin=origin)
            low = (await self._broker.extent(stream, append.partition)).high
            value = _encoder.encode(_KeptRequest(digest, append.partition, low))
            until = self._clock.now() + int(seconds * 1_000_000)
            put = Put(Space.MARKS, mark, encode_row(self._entropy.integer(62), value, until))
            change = Change((Check(Space.MARKS, mark, row),), (put,), appends=(append,))
            try:
                applied = await self._committer.commit(change)
            except Conflict:
                continue
            return applied.positions[0], applied.duplicates > 0
        raise Conflict("several requests with the same `Idempotency-Key` came at once; try again")

    def _known(self, row: bytes | None) -> _KeptRequest | None:
        if row is None:
            return None
        _, expires, value = decode_row(row)
        return _decoder.decode(value) if expires > self._clock.now() else None

    async def _found(self, stream: str, id: str | None, known: _KeptRequest) -> Position | None:
        chunks = await self._broker.fetch(
            stream, known.partition, known.low, events=LOOKED, size=1 << 20
        )
        for chunk in chunks:
            for index, event in enumerate(chunk.events(), start=chunk.low):
                if event.id == id:
                    return Position(stream, known.partition, chunk.offset_of(index))
        return None
