"""A file's content in slices of whole records: lines, or records of CSV.

In: an open file, and where a slice begins. Out: where it ends, and its records. A slice is bounded,
so a record that is longer than `MAX_RECORD_BYTES` comes in several; nothing is left out. The caller
checks that the file is still the version that was meant.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from headrace.model.errors import Unavailable
from headrace.model.triggers.files import SliceBy

SLICE_BYTES: Final = 128 << 10
"""Of a slice, but for one longer record: even where JSON escapes every byte it is an event."""
MAX_RECORD_BYTES: Final = 512 << 10
_BOM: Final = b"\xef\xbb\xbf"


class Slice(NamedTuple):
    """Records of a file.

    Attributes:
        begin, end: Where they stand in it, in bytes.
        content: The bytes of the records.
        is_whole: Whether the last record ends here; one that is too long goes on in the next slice.
    """

    begin: int
    end: int
    content: bytes
    is_whole: bool = True


def read_slice(descriptor: int, begin: int, size: int, by: SliceBy) -> Slice:
    """The slice of an open file of `size` bytes that begins at `begin`.

    Raises:
        Unavailable: It is shorter than that by now.
    """
    length = SLICE_BYTES
    while True:
        # pread has no shared position: the header is read from the same descriptor in between.
        data = os.pread(descriptor, min(length, size - begin), begin)
        if begin + len(data) >= size:
            return Slice(begin, size, data)
        if not data:
            raise Unavailable("a file became shorter while it was read")
        if end := whole(data, by):
            return Slice(begin, begin + end, data[:end])
        # A record without an end would otherwise be read again and again, twice as much each time.
        if length >= MAX_RECORD_BYTES:
            return Slice(begin, begin + len(data), data, is_whole=False)
        length *= 2


def whole(data: bytes, by: SliceBy) -> int:
    """Count the bytes at the beginning of `data` that are whole records."""
    if by == "lines":
        # 0 where no record has ended: the caller reads more.
        return data.rfind(b"\n") + 1
    end = at = quotes = 0
    while found := data.find(b"\n", at) + 1:
        quotes += data.count(b'"', at, found)
        at = found
        # RFC 4180: a quote within a field is doubled, so inside of quotes the count is odd.
        if quotes % 2 == 0:
            end = found
    return end


def records_of(part: Slice, by: SliceBy) -> list[bytes]:
    """The records of a slice, without what ends them."""
    # Spreadsheets write a byte order mark; it would become part of the first column's name.
    content = part.content.removeprefix(_BOM) if part.begin == 0 else part.content
    return list(_records(content, by))


def _records(content: bytes, by: SliceBy) -> Iterator[bytes]:
    begin, at, quotes = 0, 0, 0
    while begin < len(content):
        end = content.find(b"\n", at) + 1 or len(content)
        if by == "csv":
            # A newline within quotes is part of its field.
            quotes += content.count(b'"', at, end)
        at = end
        if quotes % 2 == 0 or end == len(content):
            yield content[begin:end].removesuffix(b"\n").removesuffix(b"\r")
            begin = end


def shown(part: Slice, by: SliceBy) -> dict[str, Any]:
    """The slice as it stands in an event: its records as texts, or its bytes where they are not UTF-8.

    The header of a CSV file is not among its records.
    """
    said: dict[str, Any] = {"begin": part.begin, "end": part.end, "whole": part.is_whole}
    begin = 1 if by == "csv" and part.begin == 0 else 0
    try:
        return said | {"records": [each.decode() for each in records_of(part, by)[begin:]]}
    except UnicodeDecodeError:
        # The whole slice, not the one record: its bytes must not be guessed at.
        return said | {"records": None, "base64": base64.b64encode(part.content).decode()}


def header_of(descriptor: int, size: int) -> str | None:
    """The first record of a CSV file; None where it has none that can be read."""
    first = read_slice(descriptor, 0, size, "csv")
    try:
        return next((record.decode() for record in records_of(first, "csv")), None)
    except UnicodeDecodeError:
        return None
