"""How fast a process with this heap can fork: to the child's first byte, one by one and 200 at once.

The heap is that of an app the workloads deploy, frozen as the zygote freezes it, so that the cold
start of that app has the same pages to copy. What is left out is everything but the fork.
"""

from __future__ import annotations

import gc
import importlib
import os
import socket
import time
from pathlib import Path

from bench.figures import arguments, percentile, report, spread

BURST = 200


def fork_once() -> float:
    """Seconds from the fork to the child's first byte."""
    ours, theirs = socket.socketpair()
    began = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        theirs.send(b"x")
        os._exit(0)
    ours.recv(1)
    took = time.perf_counter() - began
    os.waitpid(pid, 0)
    ours.close()
    theirs.close()
    return took


def fork_burst(count: int) -> float:
    """Seconds until `count` children, all alive at once, have each sent a byte."""
    began = time.perf_counter()
    children: list[tuple[int, socket.socket]] = []
    for _ in range(count):
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            theirs.send(b"x")
            theirs.recv(1)
            os._exit(0)
        theirs.close()
        children.append((pid, ours))
    for _, ours in children:
        ours.recv(1)
    took = time.perf_counter() - began
    for _, ours in children:
        ours.close()
    for pid, _ in children:
        # The later children inherited the earlier ones' sockets, so closing does not end them.
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    return took


def resident_mib() -> float:
    """Resident memory of this process."""
    with Path("/proc/self/statm").open() as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def main() -> None:
    """Load the app, freeze, fork."""
    parser = arguments(__doc__)
    parser.add_argument("--app", default="bench.apps.empty")
    options = parser.parse_args()
    importlib.import_module(options.app)
    gc.collect()
    gc.freeze()
    for _ in range(20):
        fork_once()
    samples = [fork_once() for _ in range(30 if options.quick else 300)]
    bursts = [fork_burst(20 if options.quick else BURST) for _ in range(1 if options.quick else 3)]
    report(
        **spread(samples, scale=1e3, prefix="fork_ms_"),
        burst_ms=percentile(bursts, 0.5) * 1e3,
        resident_mib=resident_mib(),
    )


if __name__ == "__main__":
    main()
