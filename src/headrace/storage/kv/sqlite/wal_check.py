"""Distinguish a write-ahead log that was torn at its end from one damaged in its middle.

SQLite takes the first frame that does not match its checksum for the end: right after a crash, when
the last transaction never reached the disk, and silent about everything behind a flipped bit. A
commit is on the disk before the next one begins. So where frames behind the end belong to a
transaction that followed a commit, that commit was acknowledged, and is being lost.

Only the heads of frames are read, and those behind the end alone: there are few, or something is wrong.
What is damaged in the very last transaction looks like a write that never ended, and is taken for one.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from headrace.model.errors import Corrupt

_HEAD = struct.Struct(">8I")
_FRAME = struct.Struct(">6I")
# The last bit of the magic number is the byte order of the checksums, by the machine that created
# the log.
_LITTLE, _BIG = 0x377F0682, 0x377F0683
_MASK = 0xFFFFFFFF


def check_log(path: Path, *, recovered: int, page_bytes: int) -> None:
    """Look behind the `recovered` frames that SQLite took from the log at `path`.

    Raises:
        Corrupt: Commits that were acknowledged stand behind a frame that cannot be read.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        _look(handle, path, recovered, page_bytes)
    finally:
        os.close(handle)


def _look(handle: int, path: Path, recovered: int, page_bytes: int) -> None:
    step = _FRAME.size + page_bytes
    # A part of a frame at the end is what a crash leaves, and counts as none.
    frames = (os.fstat(handle).st_size - _HEAD.size) // step
    if frames <= recovered:
        return
    head = os.pread(handle, _HEAD.size, 0)
    magic, _, _, _, *salts, first, second = _HEAD.unpack(head)
    order = ">" if magic == _BIG else "<"
    if magic not in {_LITTLE, _BIG} or _sums(head[:24], order, 0, 0) != (first, second):
        # The head is flushed before the first frame is written; where it never was, it is empty.
        if any(head):
            raise _damaged(path, 0)
        return

    def frame(number: int) -> tuple[bytes, int, int] | None:
        """Its head and the sums in it; None where it is of an earlier round of the log."""
        found = os.pread(handle, _FRAME.size, _HEAD.size + number * step)
        _, _, *salt, one, two = _FRAME.unpack(found)
        # Salts change when a log is restarted, and older frames are not erased: those behind the
        # end are normal.
        return (found, one, two) if salt == salts else None

    # The last frame has no successor that could prove that it was committed.
    for number in range(recovered, frames - 1):
        here = frame(number)
        # Only a commit says how large the file has become.
        if here is None or here[0][4:8] == b"\0\0\0\0":
            continue
        following = frame(number + 1)
        if following is not None:
            page = os.pread(handle, page_bytes, _HEAD.size + (number + 1) * step + _FRAME.size)
            # Sums run on from frame to frame. They are continued from those stored in the frame
            # before, so a frame can be verified even where its predecessor's data cannot.
            sums = _sums(following[0][:8], order, here[1], here[2])
            if _sums(page, order, *sums) == following[1:]:
                raise _damaged(path, recovered)


def _sums(data: bytes, order: str, first: int, second: int) -> tuple[int, int]:
    """SQLite's running sums over `data`, a whole number of pairs of 32 bits."""
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for one, two in zip(words[::2], words[1::2], strict=True):
        # Unsigned 32-bit arithmetic as in SQLite; Python's integers do not wrap.
        first = (first + one + second) & _MASK
        second = (second + two + first) & _MASK
    return first, second


def _damaged(path: Path, frames: int) -> Corrupt:
    return Corrupt(
        f"the write-ahead log `{path}` is damaged behind frame {frames}: acknowledged commits follow "
        "there, and cannot be read; nothing was changed, restore a copy of the folder"
    )
