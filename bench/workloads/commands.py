"""Row 12: the command line and the import, each in a fresh process; and the first steps with `dev`."""

from __future__ import annotations

import subprocess
import sys
import time

from bench.figures import arguments, percentile, report, scratch
from bench.workloads.serving import POLL_S, Serving, command, serving

IMPORT = (
    "import time; began = time.perf_counter(); import headrace; print(time.perf_counter() - began)"
)
STEPS = """
from headrace import App, Http

VERSION = {version}
app = App("steps")
orders = app.stream("orders")
kept = app.stream("kept")


@app.function(orders, publishes=[kept])
def keep(event, context):
    context.publish(kept, event.value)


@app.function(Http("POST", "/version"))
def version(event):
    return VERSION
"""


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


def dev_steps() -> tuple[float, float, float]:
    """Seconds from `headrace dev` until it is ready, and until the first event is run; from a save to the new code."""
    with scratch("dev") as folder:
        app = folder / "app" / "app.py"
        app.parent.mkdir()
        app.write_text(STEPS.format(version=1))
        (data := folder / "data").mkdir()
        node = Serving(str(app), data, verb="dev")
        try:
            ready = node.wait_ready()
            node.post("/-/v1/streams/orders", b"{}")
            while not node.get("/-/v1/streams/kept")["records"]:
                time.sleep(POLL_S)
            first = time.perf_counter() - node.began
            # As long as the other side of this row waits.
            time.sleep(0.3)
            began = time.perf_counter()
            app.write_text(STEPS.format(version=2))
            while node.post("/version", b"null") != 2:
                time.sleep(POLL_S)
            return ready, first, time.perf_counter() - began
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
    ready, first, saved = zip(*(dev_steps() for _ in range(min(times, 5))), strict=True)
    report(
        help_ms=percentile([timed(help_line) for _ in range(times)], 0.5) * 1e3,
        publish_ms=percentile(published(times), 0.5) * 1e3,
        import_ms=percentile([imported() for _ in range(times)], 0.5) * 1e3,
        dev_ready_ms=percentile(ready, 0.5) * 1e3,
        first_event_ms=percentile(first, 0.5) * 1e3,
        saved_ms=percentile(saved, 0.5) * 1e3,
    )


if __name__ == "__main__":
    main()
