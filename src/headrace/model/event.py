"""Events: the CloudEvents envelope as it travels and is stored.

An event is encoded as a msgpack array, so that a batch of them is one blob that does not have to
open to route it. Pure values; nothing here knows where an event is stored.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

_LIKE_A_POSITION: Final = re.compile(r":*[A-Za-z0-9._-]+/[0-9]+/[0-9]+", re.ASCII)


class Event(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A fact, as bytes: what is in `value` is opened only by the function that asked for it.

    Attributes:
        value: The payload; JSON unless the stream says otherwise.
        key: What keeps events in order; events of one key share a partition.
        time: When it happened, in microseconds since the epoch; None means "when it was appended".
        id: The producer's id, the mark by which a repeated publish is recognised. None means the
            event is known by its position (`stream/partition/offset`).
        headers: Short strings besides the payload.
        type: The CloudEvents type.
        source: The CloudEvents source.
    """

    value: bytes
    key: str | None = None
    time: int | None = None
    id: str | None = None
    headers: dict[str, str] | None = None
    type: str | None = None
    source: str | None = None

    def time_or(self, appended: int) -> int:
        """Time at which it happened, for an event that was appended at `appended` (both in microseconds)."""
        # The epoch is a time like any other.
        return appended if self.time is None else self.time

    def id_or(self, position: str) -> str:
        """Id of the event at `position`: see `known_by`."""
        return known_by(self.id, position)


def known_by(id: str | None, position: str) -> str:
    """Id of an event outside of its stream: its producer's, else its position.

    Another event's id may be written like a position (`orders/0/7`): it gets a `:` in front, which the
    name of a stream cannot hold. So two events of one stream with different ids are known by
    different texts, and an id that is not written like a position stays as it is.
    """
    if id is None:
        return position
    return f":{id}" if _LIKE_A_POSITION.fullmatch(id) else id


def fenced(text: str, mark: str) -> str:
    """A text without `mark`, so that what is joined by it comes of one pair of texts only.

    `mark` and `%` are percent-encoded: two texts stay two, and one without either stays as it is.
    """
    return text.replace("%", "%25").replace(mark, f"%{ord(mark):02X}")
