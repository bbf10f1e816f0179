"""Row 25: what it costs to look at a node of many rows, and how long the loop stands still for it.

A row is a function in one partition. Each step asks the door for `/lag`, `/metrics` and `/console`, which tell
of all of them, while a ticker notes for how much processor time nobody else came to their turn.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from itertools import pairwise

import uvloop

from bench.figures import arguments, report, scratch
from bench.workloads.node import bench_of
from headrace.faces.gateway.admission import Admission
from headrace.faces.gateway.application import Application
from headrace.faces.gateway.door import Door
from headrace.faces.gateway.exchange import Exchange
from headrace.faces.gateway.metrics import Metrics
from headrace.faces.gateway.requests import Request
from headrace.faces.gateway.rooms import Rooms
from headrace.node.lifecycle import SETTLED_S
from headrace.security.access import Peer
from headrace.world.tasks import Tasks

FUNCTIONS = (3, 25, 250, 1_000)
PARTITIONS = 4
CLIENT = Peer("127.0.0.1", neighbour=True)
PATHS = ("/lag", "/metrics", "/console")
LOOKS = 20
REST_S = 1.0

APP = """
from headrace import App, Batch

app = App("many")

def nothing(events: Batch) -> None: ...

for number in range({count}):
    app.function(app.stream(f"quiet_{{number}}", partitions={partitions}), name=f"f_{{number}}")(nothing)
"""


async def look(count: int, looks: int) -> dict[str, tuple[float, float]]:
    """By path: milliseconds of the quickest look at so many functions, and the longest standstill."""
    with scratch("looking") as folder:
        app = folder / "many.py"
        app.write_text(APP.format(count=count, partitions=PARTITIONS))
        async with bench_of(app) as bench:
            # Starting is over: pumps stand, and what there is was put by from the collector.
            await asyncio.sleep(SETTLED_S + REST_S)
            return {path: await ask(bench.node.rooms(), path, looks) for path in PATHS}


async def ask(rooms: Rooms, path: str, looks: int) -> tuple[float, float]:
    """The quickest of the answers, and the longest standstill in one of them: the median of all."""
    admission = Admission()
    tasks = Tasks(lambda name, error: print(name, error, file=sys.stderr))
    door = Application(Door(rooms=rooms, admission=admission, metrics=Metrics(), tasks=tasks))
    fields = [
        (b"host", b"localhost"),
        (b"authorization", f"Bearer {rooms.operator.key}".encode()),
    ]
    held: list[float] = []
    last = time.thread_time()

    def turn() -> None:
        nonlocal last
        now = time.thread_time()
        held.append(now - last)
        last = now

    async def tick() -> None:
        while True:
            turn()
            await asyncio.sleep(0)

    taken: list[float] = []
    longest: list[float] = []
    for _ in range(looks + 1):
        held.clear()
        ticking = asyncio.create_task(tick())
        began = last = time.thread_time()
        exchange = Exchange(go_on=lambda: None, invite=None, speaker=None)
        exchange.complete()
        request = Request("GET", path, b"", fields, dict(fields), CLIENT, exchange, admission)
        answered = await door.answer(request)
        turn()
        taken.append(time.thread_time() - began)
        longest.append(max(held))
        ticking.cancel()
        assert answered is not None
        assert answered[0].status == 200
    # The first fills caches.
    return min(taken[1:]) * 1e3, statistics.median(longest[1:]) * 1e3


def main() -> None:
    """Look at more and more."""
    options = arguments(__doc__).parse_args()
    figures: dict[str, float] = {}
    counts = FUNCTIONS[:2] if options.quick else FUNCTIONS
    found = [uvloop.run(look(count, 3 if options.quick else LOOKS)) for count in counts]
    for path in PATHS:
        name = path.strip("/")
        for count, each in zip(counts, found, strict=True):
            taken, held = each[path]
            figures[f"{name}_{count * PARTITIONS}_ms"] = taken
            figures[f"{name}_{count * PARTITIONS}_held_ms"] = held
        spent = [each[path][0] for each in found]
        figures[f"{name}_held_ms"] = max(each[path][1] for each in found)
        figures[f"{name}_tenfold"] = max(
            10 * (after / later) / (before / earlier)
            for (earlier, before), (later, after) in pairwise(zip(counts, spent, strict=True))
        )
    report(**figures)


if __name__ == "__main__":
    main()
