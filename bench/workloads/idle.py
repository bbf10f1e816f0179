"""Row 11: what a node costs while nothing happens: 1,000 functions, then 200 hibernating instances."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import uvloop

from bench.figures import arguments, percentile, report, scratch
from bench.workloads.revival import asleep
from bench.workloads.runtime import answer, call, fleet_of
from bench.workloads.serving import serving
from headrace.runtime.base import invoke

HIBERNATING = 200
WATCHED_S = 5.0
REST = b'{"rest_s": 1.0}'


def registered(quick: bool) -> dict[str, float]:
    """A node with 1,000 functions of which none runs."""
    watched_s = 1.0 if quick else WATCHED_S
    with scratch("idle") as folder, serving("thousand", folder / "data") as node:
        time.sleep(1.0)
        before = node.processor_s()
        time.sleep(watched_s)
        used = node.processor_s() - before
        return {"resident_mib": node.resident_mib(), "processor_percent": used / watched_s * 100}


async def hibernating(app: str, count: int) -> float:
    """Memory of its own that a hibernating instance has, in MiB."""
    async with fleet_of(app) as fleet:
        calls = (invoke(fleet.submit, call(f"{app}.sleeper", REST)) for _ in range(count))
        for outcome in await asyncio.gather(*calls):
            answer(outcome)
        await asleep(fleet)
        weights = [private_bytes(view.pid) for view in fleet.instances()]
    return percentile(weights, 0.5) / (1 << 20)


def private_bytes(pid: int) -> int:
    """Pages nobody else has."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Private_"))


def main() -> None:
    """Measure all three."""
    options = arguments(__doc__).parse_args()
    count = 10 if options.quick else HIBERNATING
    figures = registered(options.quick)
    figures["bare_mib"] = uvloop.run(hibernating("empty", count))
    figures["pandas_mib"] = uvloop.run(hibernating("frames", count))
    report(**figures)


if __name__ == "__main__":
    main()
