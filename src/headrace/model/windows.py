"""What a window function keeps of a partition, and how it is asked to close what is open. Pure.

The rows are kept by the function itself (`sdk/windows.py`). The host reads where a partition stands, and
asks through an event of the stream on which closed windows travel: it closes nothing itself.
"""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.model.event import Event
from headrace.model.record import Append, encode_events


class WindowProgress(msgspec.Struct, array_like=True):
    """A partition's watermark, a moment before which no window is due, and where the due ones are.

    Rows are found by name, never by a search: what one transaction has read by name, the commit
    checks, so that no transaction before it can be overlooked.

    Attributes:
        watermark: Microseconds since the epoch; windows that end there, or before, have closed.
        due: No open window ends before this moment.
        buckets: Where the ends of open windows are listed.
        last: The offset of the event that was folded last.
    """

    watermark: int | None = None
    due: int | None = None
    buckets: list[int] = []
    last: int = -1


class CloseRequest(msgspec.Struct, array_like=True, frozen=True):
    """That windows of a partition are to close now, whatever its watermark says.

    Attributes:
        stream: The stream whose events they hold.
        partition: Its partition.
        last: Only if the event folded last is still the one at this offset; None: in any case.
        keys: Whose windows; None: all of them, and the watermark moves to the end of the last.
        name: What the windows that close so are marked with; "" for nothing.
    """

    stream: str
    partition: int
    last: int | None = None
    keys: list[str | None] | None = None
    name: str = ""

    def append(self, ends: str, partitions: int, now: int) -> Append:
        """The request as an event of the function's stream of closed windows."""
        event = Event(msgspec.msgpack.encode(self), time=now)
        return Append(ends, self.partition % partitions, 1, encode_events([event]))


FLUSH_HEADER = "headrace-flush"
"""On the stream of closed windows: the name of the request that closed the window."""


def windows_place(stream: str, partition: int) -> str:
    """What the keys begin with under which a window function keeps the windows of a partition."""
    return f"{stream}/{partition}/"


def progress_key(place: str) -> str:
    """Where a partition's `WindowProgress` is kept."""
    return f"{place}at"


def decode_progress(value: bytes) -> WindowProgress:
    """The progress that a state row holds.

    Raises:
        msgspec.DecodeError: The bytes are not such a value.
    """
    return _progress.decode(value)


def request_of(value: list[Any]) -> CloseRequest:
    """The request that travels as a plain list."""
    return msgspec.convert(value, CloseRequest)


_progress = msgspec.msgpack.Decoder(WindowProgress)
