"""Drops files into a folder, from a process of its own, and says when each was closed.

Standard library only: the limit, our workload and the peers all have their files dropped by it.
Times are the machine's monotonic clock in seconds, which all its processes share.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time

FILES = 60
QUICK_FILES = 8
WARM_UP = 5
PAUSE_S = 0.15
BODY = b"x" * 200


def drop(folder: str, count: int) -> dict[str, float]:
    """Write `count` files one by one; by name, when each was about to be closed."""
    closed: dict[str, float] = {}
    for number in range(count):
        name = f"{number}.txt"
        file = os.open(f"{folder}/{name}", os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o644)
        os.write(file, BODY)
        closed[name] = time.monotonic()
        os.close(file)
        time.sleep(PAUSE_S)
    return closed


def count_of(*, quick: bool) -> int:
    """How many files a program is to have dropped."""
    return WARM_UP + (QUICK_FILES if quick else FILES)


async def dropped(folder: str, count: int) -> dict[str, float]:
    """Have a process of its own drop the files; when each was closed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.dropping", folder, str(count), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    closed: dict[str, float] = json.loads(output)
    return closed


def samples(closed: dict[str, float], heard: dict[str, float]) -> list[float]:
    """Seconds from the closing of each file until it was heard of, without the first few."""
    return [heard[name] - at for name, at in list(closed.items())[WARM_UP:]]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(drop(sys.argv[1], int(sys.argv[2]))) + "\n")
