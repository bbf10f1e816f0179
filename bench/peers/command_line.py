"""How long a peer's command line takes to print its help; from spawn to exit."""

from __future__ import annotations

import subprocess
import time

from bench.figures import arguments, percentile, report
from bench.peers.servers import executable


def timed(name: str) -> float:
    """Seconds of `NAME --help`."""
    began = time.perf_counter()
    subprocess.run([executable(name), "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    """Ask each several times."""
    times = 1 if arguments(__doc__).parse_args().quick else 5
    figures: dict[str, float] = {}
    for name in ("celery", "taskiq", "faststream"):
        timed(name)
        figures[f"{name}_help_ms"] = percentile([timed(name) for _ in range(times)], 0.5) * 1e3
    report(**figures)


if __name__ == "__main__":
    main()
