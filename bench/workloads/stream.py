"""Rows 6, 7 and 9: published durably, handed in batches to a function, committed exactly once.

`touch` reads every event, `copy` publishes one output for each, `before` commits before it runs;
`single` runs one event at a time over 16 partitions. Producers publish while functions run, as far
ahead as the lead allows; the figure is events committed over the whole time. `drain` lets single
events run that were published before, one by one, as the peers' programs do.
"""

from __future__ import annotations

import asyncio
import itertools
import time

import uvloop

from bench.figures import arguments, report
from bench.workloads.node import VALUE, Bench, Committed, bench_of, orders
from headrace.model.event import Event
from headrace.model.partitioner import partition_of

BUDGET_S = 2.0
LEAD = 16
"""Batches the producers may be ahead of the commits."""
PRODUCERS = 4
LANES = 16
BACKLOG = 10_000
KINDS = ("touch", "copy", "before", "single", "drain")


async def in_batches(bench: Bench, name: str, size: int, seconds: float) -> float:
    """Events per second in batches of `size`."""
    function = f"{name}_{size}"
    committed = await Committed.watching(bench, f"road.{function}", function, [0])
    events = orders(size)
    published = 0
    began = time.perf_counter()
    until = began + seconds

    async def producer() -> None:
        nonlocal published
        while time.perf_counter() < until:
            published += size
            await committed.reaches(published - LEAD * size)
            await bench.node.publisher.publish(function, events)

    async with asyncio.TaskGroup() as producers:
        for _ in range(PRODUCERS):
            producers.create_task(producer())
    await committed.reaches(published)
    return committed.count / (time.perf_counter() - began)


def lane_keys() -> list[str]:
    """One key for each partition."""
    keys: dict[int, str] = {}
    for number in itertools.count():
        keys.setdefault(partition_of(str(number), LANES), str(number))
        if len(keys) == LANES:
            break
    return [keys[partition] for partition in range(LANES)]


async def one_by_one(bench: Bench, seconds: float, *, lead: int) -> float:
    """Single events per second; every partition has a producer that waits for each fsync.

    With a lead of 0 a producer also waits for the commit, so that never more than 16 events are in
    the system.
    """
    began = time.perf_counter()
    until = began + seconds
    async with asyncio.TaskGroup() as producers:
        lanes = [
            producers.create_task(lane(bench, partition, key, lead=lead, until=until))
            for partition, key in enumerate(lane_keys())
        ]
    return sum(done.result() for done in lanes) / (time.perf_counter() - began)


async def drained(bench: Bench, count: int) -> float:
    """Single events per second of a backlog, until all of it is committed."""
    function = "road.single"
    bench.node.supervisor.pause(function)
    committed = await Committed.watching(bench, function, "single", range(LANES))

    async def fill(key: str) -> None:
        for _ in range(count // LANES):
            await bench.node.publisher.publish("single", [Event(VALUE, key)])

    await asyncio.gather(*map(fill, lane_keys()))
    began = time.perf_counter()
    bench.node.supervisor.resume(function)
    await committed.reaches(count // LANES * LANES)
    return committed.count / (time.perf_counter() - began)


async def lane(bench: Bench, partition: int, key: str, *, lead: int, until: float) -> int:
    """How many events one producer has published and seen committed."""
    event = [Event(VALUE, key)]
    committed = await Committed.watching(bench, "road.single", "single", [partition])
    published = 0
    while time.perf_counter() < until:
        await committed.reaches(published - lead)
        await bench.node.publisher.publish("single", event)
        published += 1
    await committed.reaches(published)
    return published


async def measure(kind: str, size: int, *, quick: bool) -> dict[str, float]:
    """Warm up, then measure one shape."""
    seconds = 0.3 if quick else BUDGET_S
    async with bench_of("road") as bench:
        if kind == "drain":
            await one_by_one(bench, 0.3, lead=LEAD)
            return {"drain_per_s": await drained(bench, 1_600 if quick else BACKLOG)}
        if kind == "single":
            await one_by_one(bench, 0.3, lead=LEAD)
            return {
                "per_s": await one_by_one(bench, seconds, lead=LEAD),
                "closed_per_s": await one_by_one(bench, seconds, lead=0),
            }
        warm = await in_batches(bench, kind, size, 0.3)
        assert warm > 0
    async with bench_of("road") as bench:
        return {"per_s": await in_batches(bench, kind, size, seconds)}


def main() -> None:
    """Measure one shape."""
    parser = arguments(__doc__)
    parser.add_argument("--kind", choices=KINDS, default="touch")
    parser.add_argument("--batch", type=int, choices=(128, 1_000), default=128)
    options = parser.parse_args()
    report(**uvloop.run(measure(options.kind, options.batch, quick=options.quick)))


if __name__ == "__main__":
    main()
