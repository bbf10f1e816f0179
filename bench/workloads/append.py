"""Row 5: appends of 200-byte events, each answered after the fsync; one producer, then 64."""

from __future__ import annotations

import asyncio
import time

import uvloop

from bench.figures import arguments, report, scratch
from bench.limits.store import blob
from headrace.environment.clock import SystemClock
from headrace.environment.tasks import Tasks
from headrace.model.effects import Change
from headrace.model.function import StreamSpec
from headrace.model.record import Append
from headrace.storage.kv.sqlite.storage import SqliteStorage
from headrace.storage.log.embedded.log import EmbeddedBroker

BUDGET_S = 0.7


class AppendsWentWrong(Exception):
    """Housekeeping failed while appends were measured."""


async def rate(storage: SqliteStorage, batch: int, producers: int, seconds: float) -> float:
    """Events per second."""
    change = Change(appends=(Append("bench", 0, batch, blob(batch)),))
    done = 0
    began = time.perf_counter()
    until = began + seconds

    async def producer() -> None:
        nonlocal done
        while time.perf_counter() < until:
            await storage.apply(change)
            done += batch

    async with asyncio.TaskGroup() as group:
        for _ in range(producers):
            group.create_task(producer())
    return done / (time.perf_counter() - began)


async def measure(batch: int, *, quick: bool) -> dict[str, float]:
    """One producer, then 64."""
    seconds = 0.1 if quick else BUDGET_S
    failures: list[str] = []
    tasks = Tasks(lambda name, error: failures.append(f"{name}: {error!r}"))
    with scratch("append") as folder:
        clock = SystemClock()
        storage = await SqliteStorage.open(folder, clock=clock)
        broker = EmbeddedBroker(storage, clock=clock, tasks=tasks)
        await broker.declare(StreamSpec(name="bench"))
        await rate(storage, batch, 1, 0.05)
        one = await rate(storage, batch, 1, seconds)
        many = await rate(storage, batch, 64, seconds)
        await broker.close()
        await tasks.close()
        await storage.close()
    if failures:
        raise AppendsWentWrong("; ".join(failures))
    return {"one_per_s": one, "many_per_s": many}


def main() -> None:
    """Measure one batch size."""
    parser = arguments(__doc__)
    parser.add_argument("--batch", type=int, default=1_000)
    options = parser.parse_args()
    report(**uvloop.run(measure(options.batch, quick=options.quick)))


if __name__ == "__main__":
    main()
