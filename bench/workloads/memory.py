"""Row 26: whether a node under steady load stops growing.

A host fills its caches first, which have a bound each: 16 MiB of the newest chunks, 16 MiB of rows, and of
pages 16 MiB a connection. From then on it must stay as large as it is. The figures are what is its own of the
host's memory at the end of each fifth of the time, and what the last two fifths grew by against the first two.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import uvloop

from bench.figures import arguments, report, scratch
from bench.workloads.node import bench_of
from headrace.model.event import Event

BATCH = 200
PER_SECOND = 2_000
KEYS = 5_000
MINUTES = 10
FIFTHS = 5

APP = """
from headrace import App, Batch, Context

app = App("steady")
orders, totals = app.stream("orders", partitions=4), app.stream("totals", partitions=4)

@app.function(orders, batch_size=500)
def add(events: Batch, context: Context) -> None:
    for event in events:
        total = context.state.get(event.key, 0) + 1
        context.state.put(event.key, total)
        context.publish(totals, {"total": total}, key=event.key)

@app.function(totals, batch_size=500)
def see(events: Batch) -> None: ...
"""


def own_mib() -> float:
    """MiB that are this process's alone."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("the kernel says nothing of private memory")


async def load(seconds: float) -> list[float]:
    """Publish at a steady pace; MiB at the start and after each fifth."""
    with scratch("memory") as folder:
        app = folder / "steady.py"
        app.write_text(APP)
        async with bench_of(app) as bench:
            sizes, began, count = [own_mib()], time.monotonic(), 0
            while (spent := time.monotonic() - began) < seconds:
                events = [
                    Event(b'{"amount": 5}', f"k{number % KEYS}", id=f"e{number}")
                    for number in range(count, count + BATCH)
                ]
                await bench.node.publisher.publish("orders", events)
                count += BATCH
                if spent >= len(sizes) * seconds / FIFTHS:
                    sizes.append(own_mib())
                await asyncio.sleep(max(began + count / PER_SECOND - time.monotonic(), 0))
            return [*sizes[:FIFTHS], own_mib()]


def main() -> None:
    """Load a node for a while."""
    options = arguments(__doc__).parse_args()
    sizes = uvloop.run(load(5.0 if options.quick else 60.0 * MINUTES))
    early, late = sizes[2] - sizes[0], sizes[-1] - sizes[-3]
    figures = {f"fifth_{number}_mib": size for number, size in enumerate(sizes)}
    report(growth=late / max(early, 1.0), largest_mib=max(sizes), **figures)


if __name__ == "__main__":
    main()
