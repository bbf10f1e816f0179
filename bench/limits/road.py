"""The bare road: append and fsync, a batch to an isolated child, then results and position, fsync.

One fsync covers new batches and finished ones together, as any group commit would. No order, no
retry, no checks, no second reader: what a platform adds to this is what the ratio shows.
With `--paced` single events arrive at that rate instead, and the latency of each one counts.
"""

from __future__ import annotations

import os
import time
from collections import deque
from pathlib import Path

import msgspec

from bench.figures import arguments, cores, percentile, pin, report, scratch, spread
from bench.limits.frames import EVENT, Child, fork_child, frame
from bench.limits.pipe import serve

BUDGET_S = 1.0


def run(
    file: int, child: Child, batch: int, in_flight: int, seconds: float
) -> tuple[int, float, list[float]]:
    """Events done, seconds taken, and the latency of every batch."""
    encoder = msgspec.msgpack.Encoder()
    events = [EVENT] * batch
    started: deque[float] = deque()
    latencies: list[float] = []
    finished: list[bytes] = []
    done = 0
    began = time.perf_counter()

    def commit(fresh: list[bytes]) -> None:
        nonlocal done
        os.write(file, b"".join(fresh) + b"".join(finished))
        os.fdatasync(file)
        now = time.perf_counter()
        for _ in finished:
            latencies.append(now - started.popleft())
            done += batch
        finished.clear()

    while True:
        open_for_more = time.perf_counter() - began < seconds
        if not open_for_more and not started:
            return done, time.perf_counter() - began, latencies
        fresh: list[bytes] = []
        while open_for_more and len(started) - len(finished) < in_flight:
            started.append(time.perf_counter())
            fresh.append(frame(encoder.encode(events)))
        if fresh or finished:
            commit(fresh)
        if fresh:
            child.pipe.send(b"".join(fresh))
        if started:
            finished.append(frame(child.pipe.receive()))
            while (result := child.pipe.ready()) is not None:
                finished.append(frame(result))


def pace(file: int, child: Child, per_s: float, seconds: float) -> list[float]:
    """Latencies of single events that arrive evenly: two fsyncs and one round trip each."""
    encoder = msgspec.msgpack.Encoder()
    event = [EVENT]
    latencies: list[float] = []
    began = time.perf_counter()
    for number in range(int(per_s * seconds)):
        due = began + number / per_s
        if (early := due - time.perf_counter()) > 0:
            time.sleep(early)
        sent = time.perf_counter()
        body = frame(encoder.encode(event))
        os.write(file, body)
        os.fdatasync(file)
        child.pipe.send(body)
        os.write(file, frame(child.pipe.receive()))
        os.fdatasync(file)
        latencies.append(time.perf_counter() - sent)
    return latencies


def open_log(folder: Path) -> int:
    """An empty append-only file."""
    return os.open(folder / "road.log", os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_APPEND, 0o600)


def main() -> None:
    """Measure one shape of the road, with the child on either core."""
    parser = arguments(__doc__)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--in-flight", type=int, default=4)
    parser.add_argument("--paced", type=float, help="events per second, one by one")
    options = parser.parse_args()
    first, second = cores()
    pin(first)
    seconds = 0.2 if options.quick else BUDGET_S
    best: dict[str, float] = {}
    with scratch("road") as folder:
        for core in (second, first):
            file = open_log(folder)
            child = fork_child(serve, core=core)
            if options.paced:
                figures = spread(
                    pace(file, child, options.paced, seconds), scale=1e3, prefix="latency_ms_"
                )
                better = not best or figures["latency_ms_p50"] < best["latency_ms_p50"]
            else:
                done, took, latencies = run(file, child, options.batch, options.in_flight, seconds)
                figures = {"per_s": done / took, "latency_ms_p50": percentile(latencies, 0.5) * 1e3}
                better = not best or figures["per_s"] > best["per_s"]
            best = figures if better else best
            child.close()
            os.close(file)
    report(**best)


if __name__ == "__main__":
    main()
