"""Event as a handler gets it, decoded only as far as the handler looks.

The wire form (`model.event.Event`) is decoded straight into this class; where it came from and its
opened value are filled in later. The order of the first seven fields is the wire's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum
from types import MappingProxyType
from typing import Any, ClassVar, Final, Generic

import msgspec

from headrace.model.errors import HeadraceError
from headrace.model.event import known_by
from headrace.model.record import Chunk
from headrace.sdk.type_variables import T

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Undecodable(HeadraceError):
    """An event's bytes are not a value of its stream's type: a failure of that one event.

    Attributes:
        event: The event whose `value` was asked for.
    """

    code: ClassVar[str] = "undecodable"

    def __init__(self, message: str, event: Event[Any]) -> None:
        super().__init__(message)
        self.event = event


class SameKey(Enum):
    """Stands for the key of the event at hand, where no key is given."""

    SAME_KEY = "the key of the event at hand"

    def __repr__(self) -> str:
        return self.name


SAME_KEY: Final = SameKey.SAME_KEY


class Origin:
    """Values that the events of one chunk share.

    Attributes:
        chunk: Where they stand.
        base: The index in the batch of the chunk's first event.
        decode: Opens a value.
    """

    __slots__ = ("base", "chunk", "decode")

    def __init__(self, chunk: Chunk, base: int, decode: Callable[[bytes], Any]) -> None:
        self.chunk = chunk
        self.base = base
        self.decode = decode


class Event(msgspec.Struct, Generic[T], array_like=True, gc=False, eq=False):
    """A fact at a position of a stream.

    Attributes:
        raw: The payload as it was published.
        key: What keeps events in order, or None.
        type: The CloudEvents type, or None.
        source: The CloudEvents source, or None.
    """

    raw: bytes
    key: str | None = None
    _time: int | None = None
    _id: str | None = None
    _headers: dict[str, str] | None = None
    type: str | None = None
    source: str | None = None
    _origin: Any = None
    _index: int = 0
    _value: Any = msgspec.UNSET

    @property
    def value(self) -> T:
        """The payload as the stream's type; opened when first asked for.

        Raises:
            Undecodable: The bytes are not such a value. Let it pass: it fails this event only.
        """
        value: T = self._value
        if value is not msgspec.UNSET:
            return value
        origin: Origin = self._origin
        try:
            value = self._value = origin.decode(self.raw)
        except Exception as error:
            raise Undecodable(f"`{self.position}` cannot be decoded: {error}", self) from error
        return value

    @property
    def stream(self) -> str:
        """The stream's name."""
        name: str = self._origin.chunk.stream
        return name

    @property
    def partition(self) -> int:
        """The partition, from 0."""
        number: int = self._origin.chunk.partition
        return number

    @property
    def offset(self) -> int:
        """The position in the partition, from 0."""
        origin: Origin = self._origin
        return origin.chunk.offset_of(origin.chunk.low + self._index - origin.base)

    @property
    def position(self) -> str:
        """`stream/partition/offset`."""
        return f"{self.stream}/{self.partition}/{self.offset}"

    @property
    def id(self) -> str:
        """The producer's id, or the position where it gave none.

        An id that is written like a position has a `:` in front, so that it is not another event's.
        """
        return known_by(self._id, self.position)

    @property
    def timestamp(self) -> float:
        """Time at which it happened (or was appended, if unknown), in seconds since the epoch."""
        return self._micros / 1e6

    @property
    def time(self) -> datetime:
        """Time at which it happened (or was appended, if unknown), in UTC."""
        return _EPOCH + timedelta(microseconds=self._micros)

    @property
    def _micros(self) -> int:
        """The same, in microseconds since the epoch, which is a time like any other."""
        appended: int = self._origin.chunk.appended
        return appended if self._time is None else self._time

    @property
    def headers(self) -> Mapping[str, str]:
        """Short strings besides the payload."""
        return _NO_HEADERS if self._headers is None else MappingProxyType(self._headers)

    def __repr__(self) -> str:
        return f"Event({self.position}, key={self.key!r}, {len(self.raw)} bytes)"


_events = msgspec.msgpack.Decoder(list[Event[Any]])
_raws = msgspec.msgpack.Decoder(list[msgspec.Raw])
_one = msgspec.msgpack.Decoder(Event[Any])


def open_chunk(chunk: Chunk, base: int, decode: Callable[[bytes], Any]) -> list[Event[Any]]:
    """The events a chunk means, the first of them at index `base` of the batch.

    Raises:
        msgspec.DecodeError: The blob is not an array of events.
    """
    low, high = chunk.low, chunk.high
    if (high - low) * 4 < chunk.count:
        # A small window on a large blob: step over what is not meant instead of building it.
        events = [_one.decode(raw) for raw in _raws.decode(chunk.body)[low:high]]
    else:
        events = _events.decode(chunk.body)
        if len(events) != high - low:
            events = events[low:high]
    origin = Origin(chunk, base, decode)
    index = base
    for event in events:
        # The last field is set too: a blob with surplus fields must not bring its own value.
        event._origin = origin
        event._index = index
        event._value = msgspec.UNSET
        index += 1
    return events
