"""Row 14: one partition, a thousand keys, order kept for each of them.

`slow`: each event waits 10 ms for something else, and 64 may be on their way at once, so that 6,400 a
second are the most there can be. `swift` has no work at all and is held against `plain`, the same
function over a partition in order, without lanes: the price of sorting events by key. All is
published beforehand, and a tenth of it was worked off before, so that no forks count.
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


async def drain(bench: Bench, stream: str, events: int) -> dict[str, float]:
    """Events per second from a backlog to an empty stream, and the host's time for each."""
    function = SHAPES[stream][0]
    committed = await Committed.watching(bench, f"lanes.{function}", stream, [0])
    bench.node.supervisor.pause(f"lanes.{function}")
    for begin in range(0, events, KEYS):
        keys = range(begin, min(begin + KEYS, events))
        await bench.node.publisher.publish(stream, [Event(VALUE, str(n % KEYS)) for n in keys])
    began, busy = time.perf_counter(), time.process_time()
    bench.node.supervisor.resume(f"lanes.{function}")
    # The watermark stands at the oldest event that is not finished; at the end it is exact.
    await committed.reaches(events)
    return {
        "per_s": events / (time.perf_counter() - began),
        "host_us": (time.process_time() - busy) / events * 1e6,
    }


async def measure(stream: str, *, quick: bool) -> dict[str, float]:
    """One shape, on a fresh node, once its instances are there."""
    events = SHAPES[stream][1]
    async with bench_of("lanes") as bench:
        await drain(bench, stream, events // 10)
        figures = await drain(bench, stream, events // 10 if quick else events)
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
