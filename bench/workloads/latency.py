"""Row 8: single events at an even rate, from before the publish until their commit is on the disk.

With `--to handler` until the handler's first line instead, which is where the peers' programs stop
their watches; the event is on the disk by then all the same.
"""

from __future__ import annotations

import asyncio
import time

import msgspec
import uvloop

from bench.figures import arguments, report, spread
from bench.workloads.node import VALUE, Committed, bench_of, orders
from headrace.model.event import Event

RATE_PER_S = 1_000
BUDGET_S = 2.0
WARM_UP = 200
SINGLES = 280


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


async def to_handler(*, rate: float, quick: bool) -> dict[str, float]:
    """One after the other, with a pause; the handler's own clock counts, as at the peers."""
    count = 30 if quick else SINGLES
    order = msgspec.json.decode(VALUE)
    async with bench_of("road") as bench:
        committed = await Committed.watching(bench, "road.stamp", "stamped", [0])
        for _ in range(WARM_UP + count):
            value = msgspec.json.encode({"sent": time.time(), **order})
            await bench.node.publisher.publish("stamped", [Event(value)])
            await asyncio.sleep(1 / rate)
        await bench.node.publisher.publish("stamped", [Event(b"{}")])
        await committed.reaches(WARM_UP + count + 1)
        (chunk,) = await bench.node.broker.fetch("delays", 0, 0, events=1, size=1 << 24)
        samples = msgspec.json.decode(chunk.events()[0].value, type=list[float])
    return spread(samples[WARM_UP:], scale=1e3, prefix="latency_ms_")


def main() -> None:
    """Measure at the rate asked for."""
    parser = arguments(__doc__)
    parser.add_argument("--rate", type=float, default=RATE_PER_S)
    parser.add_argument("--to", choices=("commit", "handler"), default="commit")
    options = parser.parse_args()
    work = measure if options.to == "commit" else to_handler
    report(**uvloop.run(work(rate=options.rate, quick=options.quick)))


if __name__ == "__main__":
    main()
