"""Checks that this process can be forked: one thread, and no unexpected descriptor.

The full check runs once, after the import of the author's code; before every fork only the counts
are compared.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path


class NotForkable(Exception):
    """Importing the app left a thread or descriptor that a fork would break."""


def count_descriptors() -> int:
    """Count the open descriptors of this process."""
    # On Linux 6.2 and later the folder's size is the number of descriptors; before, names have to
    # be counted.
    size = os.stat("/proc/self/fd").st_size  # noqa: PTH116 - hot
    return size or len(os.listdir("/proc/self/fd")) - 1  # noqa: PTH208 - names only


def check_forkable(control: int) -> None:
    """Check that importing the app left no thread or descriptor behind.

    Raises:
        NotForkable: A thread, socket or file is still there.
    """
    threads = [thread.name for thread in threading.enumerate()][1:]
    # From the kernel: `threading` does not know threads that C libraries start.
    count = len(list(Path("/proc/self/task").iterdir()))
    if count != 1:
        names = f" ({', '.join(threads)})" if threads else ""
        raise NotForkable(
            f"importing it started {count - 1} thread(s){names}; "
            "start them in an `@app.init` function, which runs once in every instance"
        )
    for entry in Path("/proc/self/fd").iterdir():
        if int(entry.name) in {0, 1, 2, control}:
            continue
        try:
            what = str(entry.readlink())
        # The descriptor of the listing itself is closed by now.
        except FileNotFoundError:
            continue
        # The listing above is under /proc, and the interpreter may keep the random device open.
        if what.startswith(("/proc/", "/dev/urandom", "/dev/random")):
            continue
        raise NotForkable(
            f"importing it left `{what}` open; "
            "open it in an `@app.init` function, which runs once in every instance"
        )
