"""Row 10: a node killed with SIGKILL in the middle of a backlog of a million events, started again.

From the start of the process until the first run of a function is on the node's record, asked over
HTTP every few milliseconds; interpreter, imports, the store's recovery and the zygote all count.
"""

from __future__ import annotations

import time

import uvloop

from bench.figures import arguments, report, scratch
from bench.workloads.filling import fill
from bench.workloads.serving import ServeWentWrong, Serving
from headrace.model.function import StreamSpec

BACKLOG = 1_000_000
PATIENCE_S = 60.0


def first_run(node: Serving) -> float:
    """Seconds from the start of the process until something has been handled."""
    node.wait_ready()
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        if (
            any(row["position"] > 0 for row in lag_of(node))
            and node.get("/-/v1/invocations?limit=1")["invocations"]
        ):
            return time.perf_counter() - node.began
        time.sleep(0.002)
    raise ServeWentWrong(f"nothing was handled within {PATIENCE_S:.0f} s")


def lag_of(node: Serving) -> list[dict[str, int]]:
    """The rows of the one function that has a backlog."""
    rows: list[dict[str, int]] = node.get("/-/v1/lag?function=backlog.touch_1")["lag"]
    return rows


def main() -> None:
    """Fill, start, kill in the middle, start again."""
    options = arguments(__doc__).parse_args()
    events = 50_000 if options.quick else BACKLOG
    with scratch("recovery") as folder:
        data = folder / "data"
        spec = StreamSpec(name="backlog_1", owner="backlog")
        uvloop.run(fill(data, spec, events))
        node = Serving("backlog", data)
        first_run(node)
        node.kill()
        node = Serving("backlog", data)
        seconds = first_run(node)
        left = sum(row["lag"] for row in lag_of(node))
        node.kill()
    report(first_run_s=seconds, backlog_left=left)


if __name__ == "__main__":
    main()
