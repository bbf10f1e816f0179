"""Row 12: the command line and the import, each in a fresh process; and `dev` until it is ready."""

from __future__ import annotations

import subprocess
import sys
import time

from bench.figures import arguments, percentile, report, scratch
from bench.workloads.serving import Serving, command, serving

IMPORT = (
    "import time; began = time.perf_counter(); import headrace; print(time.perf_counter() - began)"
)


def timed(line: list[str]) -> float:
    """Seconds of a whole process that must succeed."""
    began = time.perf_counter()
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def imported() -> float:
    """Seconds that `import headrace` takes within a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORT], check=True, capture_output=True, text=True
    )
    return float(done.stdout)


def dev_ready() -> float:
    """Seconds from `headrace dev` until the node is ready."""
    with scratch("dev") as folder:
        data = folder / "data"
        data.mkdir()
        node = Serving("empty", data, verb="dev")
        try:
            return node.wait_ready()
        finally:
            node.stop()


def published(times: int) -> list[float]:
    """Seconds of `headrace publish` to a running node."""
    with scratch("publish") as folder, serving("road", folder / "data") as node:
        line = command("publish", "single", '{"id": "1"}', "--url", node.url)
        timed(line)
        return [timed(line) for _ in range(times)]


def main() -> None:
    """Measure each several times and take the median."""
    times = 2 if arguments(__doc__).parse_args().quick else 10
    help_line = command("--help")
    timed(help_line)
    imported()
    report(
        help_ms=percentile([timed(help_line) for _ in range(times)], 0.5) * 1e3,
        publish_ms=percentile(published(times), 0.5) * 1e3,
        import_ms=percentile([imported() for _ in range(times)], 0.5) * 1e3,
        dev_ready_ms=percentile([dev_ready() for _ in range(2)], 0.5) * 1e3,
    )


if __name__ == "__main__":
    main()
