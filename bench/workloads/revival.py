"""Row 4: a call that finds its instance hibernating: from the call to the answer."""

from __future__ import annotations

import asyncio
import time

import uvloop

from bench.figures import arguments, report, spread
from bench.workloads.runtime import answer, call, fleet_of
from headrace.runtime.base import invoke
from headrace.runtime.fleet import Fleet

REST_S = 0.002
PATIENCE_S = 5.0


async def asleep(fleet: Fleet) -> None:
    """Wait until every instance hibernates.

    Raises:
        TimeoutError: It does not happen.
    """
    async with asyncio.timeout(PATIENCE_S):
        while not all(view.state == "hibernating" for view in fleet.instances()):  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.002)
    await asyncio.sleep(REST_S)


async def measure(*, quick: bool) -> dict[str, float]:
    """Call, let it fall asleep, call again."""
    samples: list[float] = []
    async with fleet_of("empty") as fleet:
        answer(await invoke(fleet.submit, call("empty.sleeper")))
        for _ in range(5 if quick else 40):
            await asleep(fleet)
            invocation = call("empty.sleeper")
            began = time.perf_counter()
            outcome = await invoke(fleet.submit, invocation)
            samples.append(time.perf_counter() - began)
            answer(outcome)
    return spread(samples, scale=1e6, prefix="revival_us_")


def main() -> None:
    """Measure."""
    report(**uvloop.run(measure(quick=arguments(__doc__).parse_args().quick)))


if __name__ == "__main__":
    main()
