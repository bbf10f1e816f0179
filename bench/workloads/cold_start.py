"""Row 1: from asking for an instance to the handler's first line, when none is there.

Clocks are monotonic and shared by all processes of a machine, so the handler's own reading counts.
The burst asks for 200 at once, each kept busy long enough that every call needs its own instance.
"""

from __future__ import annotations

import asyncio
import time

import uvloop

from bench.figures import arguments, report, spread
from bench.workloads.runtime import answer, call, fleet_of
from headrace.runtime.base import invoke
from headrace.runtime.fleet import Fleet

BURST = 200
REST = b'{"rest_s": 1.5}'


async def cold_call(fleet: Fleet, function: str) -> float:
    """Seconds from the lease to the first line of a fresh instance."""
    began = time.perf_counter_ns()
    first_line = int(answer(await invoke(fleet.submit, call(function))))
    # The instance ends with its only run; the next call must not find the machine burying it.
    while fleet.instances():  # noqa: ASYNC110 - the fleet tells nobody when one is gone
        await asyncio.sleep(0.001)
    return (first_line - began) / 1e9


async def burst(fleet: Fleet, function: str, count: int) -> float:
    """Seconds until `count` instances, asked for at once, are all at their first line."""
    began = time.perf_counter_ns()
    outcomes = await asyncio.gather(
        *(invoke(fleet.submit, call(function, REST)) for _ in range(count))
    )
    return (max(int(answer(outcome)) for outcome in outcomes) - began) / 1e9


async def measure(app: str, *, quick: bool, isolation: int) -> dict[str, float]:
    """Cold starts one by one, then a burst."""
    name = f"{app}.first_line" + ("_confined" if isolation == 2 else "")
    async with fleet_of(app) as fleet:
        for _ in range(5):
            await cold_call(fleet, name)
        samples = [await cold_call(fleet, name) for _ in range(20 if quick else 200)]
        figures = spread(samples, scale=1e3, prefix="cold_ms_")
        if isolation == 1:
            figures["burst_ms"] = await burst(fleet, f"{app}.stay", 20 if quick else BURST) * 1e3
    return figures


def main() -> None:
    """Measure one app at one level of isolation."""
    parser = arguments(__doc__)
    parser.add_argument("--app", default="empty")
    parser.add_argument("--isolation", type=int, default=1, choices=(1, 2))
    options = parser.parse_args()
    report(**uvloop.run(measure(options.app, quick=options.quick, isolation=options.isolation)))


if __name__ == "__main__":
    main()
