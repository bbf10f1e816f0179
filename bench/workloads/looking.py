"""Row 25: what it costs to look at a node of many rows, and how long the loop stands still for it.

A row is a function in one partition. Each step asks for the lag of all of them, as `/lag`, `/metrics` and the
console do, while a ticker notes for how much processor time nobody else came to their turn.
"""

from __future__ import annotations

import asyncio
import time

import uvloop

from bench.figures import arguments, report, scratch
from bench.workloads.node import bench_of
from headrace.node.lifecycle import SETTLED_S

FUNCTIONS = (3, 25, 250, 1_000)
PARTITIONS = 4
LOOKS = 20
REST_S = 1.0

APP = """
from headrace import App, Batch

app = App("many")

def nothing(events: Batch) -> None: ...

for number in range({count}):
    app.function(app.stream(f"quiet_{{number}}", partitions={partitions}), name=f"f_{{number}}")(nothing)
"""


async def look(count: int, looks: int) -> tuple[float, float]:
    """Milliseconds of the quickest look at so many functions, and the longest standstill in them."""
    with scratch("looking") as folder:
        app = folder / "many.py"
        app.write_text(APP.format(count=count, partitions=PARTITIONS))
        async with bench_of(app) as bench:
            rows = bench.node.rooms().lag.rows
            # Starting is over: pumps stand, and what there is was put by from the collector.
            await asyncio.sleep(SETTLED_S + REST_S)
            await rows()
            held: list[float] = []
            last = time.thread_time()

            def turn() -> None:
                nonlocal last
                now = time.thread_time()
                held.append(now - last)
                last = now

            async def tick() -> None:
                while True:
                    turn()
                    await asyncio.sleep(0)

            taken: list[float] = []
            for _ in range(looks):
                ticking = asyncio.create_task(tick())
                began = last = time.thread_time()
                found = await rows()
                turn()
                taken.append(time.thread_time() - began)
                ticking.cancel()
                assert len(found) == count * PARTITIONS
            return min(taken) * 1e3, max(held, default=0.0) * 1e3


def main() -> None:
    """Look at more and more."""
    options = arguments(__doc__).parse_args()
    figures: dict[str, float] = {}
    spent: list[float] = []
    counts = FUNCTIONS[:2] if options.quick else FUNCTIONS
    for count in counts:
        taken, held = uvloop.run(look(count, 3 if options.quick else LOOKS))
        figures[f"rows_{count * PARTITIONS}_ms"] = taken
        figures[f"rows_{count * PARTITIONS}_held_ms"] = held
        spent.append(taken)
    figures["held_ms"] = max(value for name, value in figures.items() if name.endswith("held_ms"))
    figures["tenfold"] = max(
        10 * (after / later) / (before / earlier)
        for (earlier, before), (later, after) in zip(
            zip(counts, spent, strict=True), zip(counts[1:], spent[1:], strict=True), strict=False
        )
    )
    report(**figures)


if __name__ == "__main__":
    main()
