"""Checks that this process can be forked: one thread, and no unexpected descriptor.

Looked at thoroughly once, after the author's code was imported, and by counting before every fork.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path


class NotForkable(Exception):
    """Importing the app left something behind that a fork would tear in two."""


def count_descriptors() -> int:
    """Count the open descriptors of this process."""
    # The folder's size is their number on Linux 6.2 and later; before, names have to be counted.
    size = os.stat("/proc/self/fd").st_size  # noqa: PTH116 - hot
    return size or len(os.listdir("/proc/self/fd")) - 1  # noqa: PTH208 - names only


def check_forkable(control: int) -> None:
    """Check that importing the app left no thread or descriptor behind.

    Raises:
        NotForkable: A thread, socket or file is still there.
    """
    threads = [thread.name for thread in threading.enumerate()][1:]
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
        except FileNotFoundError:
            continue
        if what.startswith(("/proc/", "/dev/urandom", "/dev/random")):
            continue
        raise NotForkable(
            f"importing it left `{what}` open; "
            "open it in an `@app.init` function, which runs once in every instance"
        )
