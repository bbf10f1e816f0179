"""Row 8: single events at an even rate, from before the publish until their commit is on the disk."""

from __future__ import annotations

import asyncio
import time

import uvloop

from bench.figures import arguments, report, spread
from bench.workloads.node import bench_of, orders

RATE_PER_S = 1_000
BUDGET_S = 2.0
WARM_UP = 200


async def measure(*, rate: float, quick: bool) -> dict[str, float]:
    """Publish evenly; each publish is a task of its own, so that a slow one delays no other."""
    count = WARM_UP + int(rate * (0.3 if quick else BUDGET_S))
    started: list[float] = []
    finished: list[float] = []
    all_finished = asyncio.Event()

    def moved(watermark: int) -> None:
        now = time.perf_counter()
        finished.extend([now] * (watermark - len(finished)))
        if watermark == count:
            all_finished.set()

    async with bench_of("road") as bench:
        bench.storage.watch("road.alone", "alone", 0, moved)
        event = orders(1)
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.TaskGroup() as publishes:
            for number in range(count):
                pause = began + number / rate - loop.time()
                if pause > 0:
                    await asyncio.sleep(pause)
                started.append(time.perf_counter())
                publishes.create_task(bench.node.publisher.publish("alone", event))
        await all_finished.wait()
    samples = [end - start for start, end in zip(started, finished, strict=True)]
    return spread(samples[WARM_UP:], scale=1e3, prefix="latency_ms_")


def main() -> None:
    """Measure at the rate asked for."""
    parser = arguments(__doc__)
    parser.add_argument("--rate", type=float, default=RATE_PER_S)
    options = parser.parse_args()
    report(**uvloop.run(measure(rate=options.rate, quick=options.quick)))


if __name__ == "__main__":
    main()
