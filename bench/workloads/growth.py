"""Row 13: whether anything slows down as a backlog, partitions, functions or the log itself grow.

Each step measures how fast a backlog is worked off and how long a single event takes to its commit;
the figures are how many times worse the worst step is than the smallest one.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import uvloop

from bench.figures import arguments, percentile, report, scratch
from bench.limits.store import blob
from bench.workloads.filling import append_all
from bench.workloads.node import Bench, Committed, bench_of, orders
from bench.workloads.runtime import APPS
from headrace.model.effects import Change
from headrace.model.event import Event
from headrace.model.function import StreamSpec
from headrace.model.record import Append

DRAINED = 300_000
"""Events of a backlog that are timed; more of the same would only take longer."""
SINGLES = 200
BLOB_EVENTS = 20_000
EVENT_BYTES = 200

BACKLOGS = (10_000, 100_000, 1_000_000, 10_000_000)
PARTITIONS = (1, 4, 16, 64, 256)
FUNCTIONS = (1, 10, 100, 1_000)
LOG_BYTES = (0, 100 << 20, 1 << 30, 10 << 30)

Step = tuple[float, float]
"""Events per second, and the median latency in seconds (0 where it was not measured)."""


async def drain(bench: Bench, function: str, stream: str, partitions: int, backlog: int) -> float:
    """Events per second at which the front of a backlog is worked off."""
    committed = await Committed.watching(bench, function, stream, range(partitions))
    bench.node.supervisor.pause(function)
    await append_all(bench.node.storage, stream, partitions, backlog)
    timed = min(backlog, DRAINED)
    began = time.perf_counter()
    bench.node.supervisor.resume(function)
    await committed.reaches(timed)
    return committed.count / (time.perf_counter() - began)


async def singles(bench: Bench, function: str, stream: str, partitions: int) -> float:
    """Median seconds from publish to commit, one event at a time, on an otherwise idle stream."""
    committed = await Committed.watching(bench, function, stream, range(partitions))
    samples: list[float] = []
    for number in range(SINGLES):
        event = Event(orders(1)[0].value, str(number))
        before = committed.count
        began = time.perf_counter()
        await bench.node.publisher.publish(stream, [event])
        # The first commit that is seen may stand for all events before it, never for less.
        await committed.reaches(before + 1)
        samples.append(time.perf_counter() - began)
    return percentile(samples, 0.5)


async def over_backlog(quick: bool) -> list[Step]:
    """From 10^4 to 10^7 events; the small ones several times, since they are over in an instant."""
    steps: list[Step] = []
    for backlog in (10_000, 30_000) if quick else BACKLOGS:
        rates: list[float] = []
        for _ in range(5 if backlog <= 100_000 else 1):
            async with bench_of("backlog") as bench:
                await drain(bench, "backlog.touch_1", "backlog_1", 1, 10_000)
                rates.append(await drain(bench, "backlog.touch_1", "backlog_1", 1, backlog))
        steps.append((percentile(rates, 0.5), 0.0))
    return steps


async def over_partitions(quick: bool) -> list[Step]:
    """From 1 to 256 partitions, the same number of events."""
    steps: list[Step] = []
    for partitions in (1, 4) if quick else PARTITIONS:
        function, stream = f"backlog.touch_{partitions}", f"backlog_{partitions}"
        async with bench_of("backlog") as bench:
            latency = await singles(bench, function, stream, partitions)
            await drain(bench, function, stream, partitions, 10_000)
            rate = await drain(bench, function, stream, partitions, 20_000 if quick else 256_000)
        steps.append((rate, latency))
    return steps


async def over_functions(quick: bool) -> list[Step]:
    """From 1 to 1,000 other functions that have nothing to do."""
    steps: list[Step] = []
    source = (APPS / "thousand.py").read_text()
    for others in (1, 20) if quick else FUNCTIONS:
        with scratch("functions") as folder:
            app = folder / "thousand.py"
            app.write_text(source.replace("COUNT = 1_000", f"COUNT = {others}"))
            async with bench_of(app) as bench:
                latency = await singles(bench, "thousand.busy", "busy", 1)
                await drain(bench, "thousand.busy", "busy", 1, 10_000)
                rate = await drain(bench, "thousand.busy", "busy", 1, 20_000 if quick else DRAINED)
        steps.append((rate, latency))
    return steps


async def over_log(quick: bool) -> list[Step]:
    """From an empty log to one of 10 GB, in one file."""
    steps: list[Step] = []
    blob_bytes = BLOB_EVENTS * EVENT_BYTES
    change = Change(appends=(Append("bulk", 0, BLOB_EVENTS, blob(BLOB_EVENTS)),))
    async with bench_of("backlog") as bench:
        await bench.node.broker.declare(StreamSpec(name="bulk"))
        size = 0
        for wanted in (0, 20 << 20) if quick else LOG_BYTES:
            while size < wanted:
                await bench.node.storage.apply(change)
                size += blob_bytes
            latency = await singles(bench, "backlog.touch_1", "backlog_1", 1)
            rate = await drain(
                bench, "backlog.touch_1", "backlog_1", 1, 20_000 if quick else DRAINED
            )
            steps.append((rate, latency))
    return steps


OVER: dict[str, Callable[[bool], Awaitable[list[Step]]]] = {
    "backlog": over_backlog,
    "partitions": over_partitions,
    "functions": over_functions,
    "log": over_log,
}


def main() -> None:
    """Grow one thing."""
    parser = arguments(__doc__)
    parser.add_argument("--over", choices=sorted(OVER), default="backlog")
    options = parser.parse_args()

    async def grow() -> list[Step]:
        return await OVER[options.over](options.quick)

    steps = uvloop.run(grow())
    rates = [rate for rate, _ in steps]
    latencies = [latency for _, latency in steps]
    figures = {"slowdown": rates[0] / min(rates)}
    if latencies[0]:
        figures["delay"] = max(latencies) / latencies[0]
    for number, (rate, latency) in enumerate(steps, 1):
        figures[f"step_{number}_per_s"] = rate
        if latency:
            figures[f"step_{number}_ms"] = latency * 1e3
    report(**figures)


if __name__ == "__main__":
    main()
