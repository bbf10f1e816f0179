"""A stopped child, continued and asked: SIGCONT to answer; and the warm round trip beside it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from bench.figures import arguments, cores, pin, report, spread
from bench.limits.frames import fork_child
from bench.limits.round_trip import echo

REST_S = 0.002


def stopped(pid: int) -> bool:
    """Whether the kernel has really stopped it."""
    with Path(f"/proc/{pid}/stat").open() as stat:
        return stat.read().rpartition(")")[2].split()[0] == "T"


def main() -> None:
    """Stop, rest, continue, ask."""
    options = arguments(__doc__).parse_args()
    first, second = cores()
    pin(first)
    child = fork_child(echo, core=second)
    ask = child.pipe.socket
    warm: list[float] = []
    revived: list[float] = []
    for _ in range(30 if options.quick else 500):
        began = time.perf_counter()
        ask.sendall(b"x")
        ask.recv(1)
        warm.append(time.perf_counter() - began)
        os.kill(child.pid, signal.SIGSTOP)
        while not stopped(child.pid):
            pass
        time.sleep(REST_S)
        began = time.perf_counter()
        ask.sendall(b"x")
        os.kill(child.pid, signal.SIGCONT)
        ask.recv(1)
        revived.append(time.perf_counter() - began)
    child.close()
    report(
        **spread(revived, scale=1e6, prefix="revival_us_"),
        **spread(warm, scale=1e6, prefix="warm_us_"),
    )


if __name__ == "__main__":
    main()
