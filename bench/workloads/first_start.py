"""Row 2: the first ever start of a version: its zygote comes up, imports the app, and a call answers."""

from __future__ import annotations

import time

import uvloop

from bench.figures import arguments, report, spread
from bench.workloads.runtime import answer, call, fleet_of
from headrace.runtime.base import invoke


async def first_start(app: str) -> float:
    """Seconds from the deployment to the first answer."""
    began = time.perf_counter()
    async with fleet_of(app) as fleet:
        answer(await invoke(fleet.submit, call(f"{app}.echo", b"1")))
        return time.perf_counter() - began


def main() -> None:
    """Start the version afresh, several times."""
    parser = arguments(__doc__)
    parser.add_argument("--app", default="empty")
    options = parser.parse_args()
    samples = [uvloop.run(first_start(options.app)) for _ in range(2 if options.quick else 8)]
    report(**spread(samples, scale=1e3, prefix="first_ms_"))


if __name__ == "__main__":
    main()
