"""What the kernel itself takes to say that a file was closed: a blocking read of raw inotify."""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
import threading
import time

from bench.dropping import count_of, dropped, samples
from bench.figures import arguments, report, scratch, spread

IN_CLOSE_WRITE = 0x8
HEAD = struct.Struct("iIII")


def listen(watch: int, count: int, heard: dict[str, float]) -> None:
    """Note when each file was said to be closed, until all were."""
    while len(heard) < count:
        raw = os.read(watch, 1 << 16)
        now = time.monotonic()
        at = 0
        while at < len(raw):
            length = HEAD.unpack_from(raw, at)[3]
            at += HEAD.size
            heard.setdefault(os.fsdecode(raw[at : at + length].rstrip(b"\x00")), now)
            at += length


def main() -> None:
    """Listen while another process drops files."""
    options = arguments(__doc__).parse_args()
    count = count_of(quick=options.quick)
    heard: dict[str, float] = {}
    libc = ctypes.CDLL(None)
    with scratch("inotify") as folder:
        watch = libc.inotify_init1(os.O_CLOEXEC)
        libc.inotify_add_watch(watch, os.fsencode(folder), IN_CLOSE_WRITE)
        listener = threading.Thread(target=listen, args=(watch, count, heard))
        listener.start()
        closed = asyncio.run(dropped(str(folder), count))
        listener.join()
        os.close(watch)
    report(**spread(samples(closed, heard), scale=1e3, prefix="heard_ms_"))


if __name__ == "__main__":
    main()
