"""Row 14: one partition, a thousand keys, order kept for each of them.

`slow`: each event waits 10 ms for something else, and 64 may be on their way at once, so that 6,400 a
second are the most there can be. `swift` has no work at all and is held against `plain`, the same
function over a partition in order, without lanes: the price of sorting events by key. All is
published beforehand; the clock runs between two marks within, so that neither forks nor the last
stragglers count.
"""

from __future__ import annotations

import time

import uvloop

from bench.figures import arguments, report
from bench.workloads.node import VALUE, Bench, Committed, bench_of
from headrace.model.event import Event

KEYS = 1_000
WORK_S = 0.01
INSTANCES = 64
SHAPES = {"slow": ("wait", 16_000), "swift": ("by_key", 60_000), "plain": ("in_order", 200_000)}


async def drain(bench: Bench, stream: str, *, quick: bool) -> dict[str, float]:
    """Events per second between the first fifth and the last tenth, and the host's share of a core."""
    function, events = SHAPES[stream]
    total = events // 10 if quick else events
    committed = await Committed.watching(bench, f"lanes.{function}", stream, [0])
    bench.node.dispatcher.pause(f"lanes.{function}")
    for begin in range(0, total, KEYS):
        keys = range(begin, min(begin + KEYS, total))
        await bench.node.publisher.publish(stream, [Event(VALUE, str(n % KEYS)) for n in keys])
    bench.node.dispatcher.resume(f"lanes.{function}")
    await committed.reaches(total // 5)
    began, busy, seen = time.perf_counter(), time.process_time(), committed.count
    await committed.reaches(total * 9 // 10)
    seconds, done = time.perf_counter() - began, committed.count - seen
    figures = {"per_s": done / seconds, "host_us": (time.process_time() - busy) / done * 1e6}
    await committed.reaches(total)
    return figures


async def measure(stream: str, *, quick: bool) -> dict[str, float]:
    """One shape, on a fresh node."""
    async with bench_of("lanes") as bench:
        figures = await drain(bench, stream, quick=quick)
    if stream == "slow":
        figures["ideal_per_s"] = INSTANCES / WORK_S
        figures["share"] = figures["per_s"] / figures["ideal_per_s"]
    return figures


def main() -> None:
    """Measure one shape."""
    parser = arguments(__doc__)
    parser.add_argument("--shape", choices=list(SHAPES), default="slow")
    options = parser.parse_args()
    report(**uvloop.run(measure(options.shape, quick=options.quick)))


if __name__ == "__main__":
    main()
