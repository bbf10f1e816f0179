"""Row 3: calls of a warm function with a 200-byte payload; nothing is committed."""

from __future__ import annotations

import asyncio
import time

import uvloop

from bench.figures import arguments, report, spread
from bench.workloads.runtime import answer, call, fleet_of
from headrace.runtime.base import invoke
from headrace.runtime.fleet import Fleet

PAYLOAD = b'{"note": "' + b"x" * 188 + b'"}'
BUDGET_S = 1.5


async def in_a_row(fleet: Fleet, seconds: float) -> list[float]:
    """Durations of calls made one after the other."""
    samples: list[float] = []
    until = time.perf_counter() + seconds
    while (began := time.perf_counter()) < until:
        answer(await invoke(fleet.submit, call("empty.echo", PAYLOAD)))
        samples.append(time.perf_counter() - began)
    return samples


async def at_once(fleet: Fleet, seconds: float, in_flight: int) -> float:
    """Calls per second with `in_flight` callers."""
    done = 0
    began = time.perf_counter()
    until = began + seconds

    async def caller() -> None:
        nonlocal done
        while time.perf_counter() < until:
            answer(await invoke(fleet.submit, call("empty.echo", PAYLOAD)))
            done += 1

    async with asyncio.TaskGroup() as callers:
        for _ in range(in_flight):
            callers.create_task(caller())
    return done / (time.perf_counter() - began)


async def measure(*, quick: bool) -> dict[str, float]:
    """One at a time, then 16 at once."""
    seconds = 0.2 if quick else BUDGET_S
    async with fleet_of("empty") as fleet:
        await in_a_row(fleet, 0.1)
        samples = await in_a_row(fleet, seconds)
        await at_once(fleet, 0.1, 16)
        throughput = await at_once(fleet, seconds, 16)
    return {
        **spread(samples, scale=1e6, prefix="call_us_"),
        "one_per_s": len(samples) / sum(samples),
        "sixteen_per_s": throughput,
    }


def main() -> None:
    """Measure."""
    report(**uvloop.run(measure(quick=arguments(__doc__).parse_args().quick)))


if __name__ == "__main__":
    main()
