"""Row 25: what it costs to look at a node of many rows, and how long the loop stands still for it.

A row is a function in one partition; a quarter as many schedules, queues, routes and forwards are there as well, and as many dead
letters, parked keys, records and state keys as there are rows. Each step asks the server for every page and list an operator can open, while a
ticker notes for how much processor time nobody else came to their turn.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Sequence
from itertools import pairwise

import uvloop

from bench.figures import arguments, report, scratch
from bench.workloads.node import bench_of, orders
from headrace.delivery.commit.changes import dead_row_key, waiting_row_key
from headrace.delivery.parked import WAITING, encode_event, lane_of, parked_key_key
from headrace.delivery.positions import encode_waiting
from headrace.environment.tasks import Tasks
from headrace.http.admission import Admission
from headrace.http.context import ApiContext
from headrace.http.dependencies import Dependencies
from headrace.http.metrics import Metrics
from headrace.http.pipeline.request_body import RequestBody
from headrace.http.request import IncomingRequest
from headrace.http.server.application import Application
from headrace.model.codec import encode_state
from headrace.model.effects import Change, DeadEvent, Put, Space
from headrace.model.outcome import Cause
from headrace.model.record import Position
from headrace.model.stores import StoreAddress
from headrace.node.assembly import Node
from headrace.node.lifecycle import SETTLED_S
from headrace.security.access import Peer
from headrace.storage.state.rows import encode_row, rows_of
from headrace.telemetry.history import RunRecord

FUNCTIONS = (3, 25, 250, 1_000)
PARTITIONS = 4
CLIENT = Peer("127.0.0.1", neighbour=True)
MANY = ("/-/v1/lag", "/metrics", "/console")
"""What an open console or a monitor asks for again and again."""
PATHS = (
    *MANY,
    "/console/streams",
    "/console/streams/filled",
    "/console/events/filled/0/0",
    "/console/functions/many.f_0",
    "/console/triggers",
    "/console/queues",
    "/console/failures",
    "/console/dead/many.f_0/quiet_0/0/0",
    "/console/runs",
    "/-/v1/streams",
    "/-/v1/streams/filled",
    "/-/v1/streams/filled/records?limit=1000",
    "/-/v1/functions",
    "/-/v1/functions/many.f_0",
    "/-/v1/map",
    "/-/v1/sources",
    "/-/v1/schedules",
    "/-/v1/schedules/many.s_0",
    "/-/v1/queues",
    "/-/v1/queues/q_0",
    "/-/v1/queues/q_0/messages?limit=1000&group=many.w_0",
    "/-/v1/dead?limit=1000",
    "/-/v1/parked",
    "/-/v1/explain/filled/0/0",
    "/-/v1/bus/replays",
    "/-/v1/invocations?limit=1000",
    "/-/v1/logs?limit=1000",
    "/-/v1/state/many/kept?limit=1000",
    "/-/v1/instances",
    "/openapi.json",
    "/readyz",
    "/-/v1",
)
LOOKS = 20
REST_S = 1.0
SHORT_MS = 5.0
"""A look that takes less is not a matter of rows."""

APP = """
from headrace import App, Batch, Event, Every, Http
from headrace.bus import Rule

app = App("many")
app.stream("filled")

def nothing(events: Batch) -> None: ...
def alone(event: Event) -> None: ...

for number in range({count}):
    app.function(app.stream(f"quiet_{{number}}", partitions={partitions}), name=f"f_{{number}}")(nothing)
    app.function(Every(86_400), name=f"s_{{number}}")(alone)
    app.function(app.queue(f"q_{{number}}"), name=f"w_{{number}}")(nothing)
    app.function(Http("POST", f"/r/{{number}}"), name=f"h_{{number}}")(alone)
    to = app.stream(f"told_{{number}}")
    app.forward(Rule({{"detail-type": [f"t{{number}}"]}}, streams=["filled"]), to=to, name=f"r_{{number}}")
"""


async def look(count: int, looks: int) -> dict[str, tuple[float, float]]:
    """By path: milliseconds of the quickest look at so many functions, and the longest standstill."""
    with scratch("looking") as folder:
        app = folder / "many.py"
        app.write_text(APP.format(count=count, partitions=PARTITIONS))
        async with bench_of(app) as bench:
            # Starting is over: workers stand, and what there is was put by from the collector.
            await asyncio.sleep(SETTLED_S + REST_S)
            await fill(bench.node, count * PARTITIONS)
            found = {path: await ask(bench.node.services(), path, looks) for path in PATHS}
            # What was put there by hand is not a fault of the node's.
            bench.node.runs.counters.clear()
            return found


async def fill(node: Node, rows: int) -> None:
    """Dead letters, parked keys, records, state, runs and log lines: what failing for a while leaves behind."""
    await node.publisher.publish("filled", orders(rows))
    cause = Cause("ValueError", "not a number", "Traceback\n" * 20)
    event = encode_event(orders(1, key="k")[0])
    for number in range(rows):
        function, partition = f"many.f_{number // PARTITIONS}", number % PARTITIONS
        place = Position(f"quiet_{number // PARTITIONS}", partition, 0)
        dead = DeadEvent(function, place, event, cause, 5, 1, 1)
        lane = lane_of(orders(1, key="k")[0], 0)
        puts = (
            Put(Space.DEAD, dead_row_key(dead), encode_waiting(dead)),
            Put(Space.PARKED, waiting_row_key(dead), encode_waiting(dead)),
            Put(
                Space.PARKED_KEYS, parked_key_key(function, place.stream, partition, lane), WAITING
            ),
            Put(
                Space.STATE,
                rows_of(StoreAddress("many", "", "kept")).key(f"key-{number}"),
                encode_row(1, encode_state(number), 0),
            ),
        )
        await node.storage.apply(Change(puts=puts))
    for number in range(10 * rows):
        function = f"many.f_{number // 10 // PARTITIONS}"
        node.runs.record(
            RunRecord(
                function, "", "i", number, 0.1, 1, 1, "failed", "quiet_0/0/0", "ValueError: no"
            )
        )
        node.runs.write(
            time=1, function=function, instance="i", key="", level="error", text="not a number"
        )


async def ask(services: Dependencies, path: str, looks: int) -> tuple[float, float]:
    """The quickest of the answers, and the longest standstill in one of them: the median of all."""
    admission = Admission()
    tasks = Tasks(lambda name, error: print(name, error, file=sys.stderr))
    context = Application(
        ApiContext(services=services, admission=admission, metrics=Metrics(), tasks=tasks)
    )
    fields = [
        (b"host", b"localhost"),
        (b"authorization", f"Bearer {services.operator.key}".encode()),
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
        request_body = RequestBody(resume=lambda: None, invite=None, sender=None)
        request_body.complete()
        place, _, query = path.partition("?")
        request = IncomingRequest(
            "GET", place, query.encode(), fields, dict(fields), CLIENT, request_body, admission
        )
        answered = await context.answer(request)
        turn()
        taken.append(time.thread_time() - began)
        longest.append(max(held))
        ticking.cancel()
        assert answered is not None
        assert answered[0].status == 200, (path, answered[0].body[:300])
    # The first fills caches.
    return min(taken[1:]) * 1e3, statistics.median(longest[1:]) * 1e3


def main() -> None:
    """Look at more and more."""
    options = arguments(__doc__).parse_args()
    figures: dict[str, float] = {}
    counts = FUNCTIONS[:2] if options.quick else FUNCTIONS
    found = [uvloop.run(look(count, 3 if options.quick else LOOKS)) for count in counts]
    for path in MANY:
        name = path.strip("/")
        for count, each in zip(counts, found, strict=True):
            taken, held = each[path]
            figures[f"{name}_{count * PARTITIONS}_ms"] = taken
            figures[f"{name}_{count * PARTITIONS}_held_ms"] = held
        figures[f"{name}_held_ms"] = max(each[path][1] for each in found)
        figures[f"{name}_tenfold"] = tenfold(counts, [each[path][0] for each in found])
    for path in PATHS:
        longest = max(each[path][1] for each in found)
        print(f"{path}: {longest:.1f} ms held, {found[-1][path][0]:.1f} ms", file=sys.stderr)
    figures["all_held_ms"] = max(each[path][1] for each in found for path in PATHS)
    figures["all_tenfold"] = max(
        tenfold(counts, [each[path][0] for each in found])
        for path in PATHS
        if found[-1][path][0] > SHORT_MS
    )
    report(**figures)


def tenfold(counts: Sequence[int], taken: Sequence[float]) -> float:
    """What ten times the rows cost, at most: as many times as much."""
    return max(
        10 * (after / later) / (before / earlier)
        for (earlier, before), (later, after) in pairwise(zip(counts, taken, strict=True))
    )


if __name__ == "__main__":
    main()
