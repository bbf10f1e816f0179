"""Row 18: how late a thousand schedules are, all due in one instant or spread over a minute.

Late is counted from the time that was meant, once to the moment the firing is on the disk and once
to the handler's first line. Of the minute only a part is watched, at the minute's own pace: sixteen
or seventeen firings a second out of a thousand schedules.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter

import uvloop

from bench.apps import instant, minute
from bench.figures import arguments, report, spread
from bench.workloads.node import Bench, bench_of
from headrace.model.effects import Change
from headrace.model.record import decode_events

APPS = {"instant": instant, "minute": minute}
WATCHED_S = {"instant": 12.0, "minute": 15.0}
QUICK_S = 3.0
WARM_UP_S = 3.0
GRACE_S = 3.0
PAGE = 10_000


class Fired:
    """When each firing was due and when it was on the disk, in seconds since the epoch."""

    def __init__(self) -> None:
        self.begin = 0.0
        self.end = float("inf")
        self._landed: list[tuple[float, Change]] = []

    def landed(self, change: Change) -> None:
        """Keep it for later: to look into it now would delay what is measured."""
        if any(append.stream.startswith("_") for append in change.appends):
            self._landed.append((time.time(), change))

    def firings(self) -> list[tuple[str, float, float]]:
        """Stream, due, and durable, of all that were due while we watched."""
        return [
            (append.stream, event.time / 1e6, now)
            for now, change in self._landed
            for append in change.appends
            for event in decode_events(append.body)
            if self.begin <= event.time / 1e6 < self.end
        ]


async def began(bench: Bench, fired: Fired) -> list[tuple[float, float]]:
    """When each was due and when its handler began."""
    found: list[tuple[float, float]] = []
    offset = 0
    while chunks := await bench.node.broker.fetch(
        "handled", 0, offset, events=PAGE, size=PAGE << 10
    ):
        for chunk in chunks:
            notes = [json.loads(event.value) for event in chunk.events()]
            found += [(note["due"], note["began"]) for note in notes]
        offset = chunks[-1].end
    return [(due, now) for due, now in found if fired.begin <= due < fired.end]


async def measure(which: str, watched_s: float) -> dict[str, float]:
    """Watch the app for a while, and count what was early, late and missing."""
    app, fired = APPS[which], Fired()
    async with bench_of(which) as bench:
        bench.storage.landed = fired.landed
        # The first instant on whole periods that leaves time to warm up.
        fired.begin = (time.time() + WARM_UP_S) // instant.PERIOD_S * instant.PERIOD_S
        fired.begin += instant.PERIOD_S
        fired.end = fired.begin + watched_s
        await asyncio.sleep(fired.end - time.time() + GRACE_S)
        firings = fired.firings()
        handled = await began(bench, fired)
    wanted = round(app.COUNT * watched_s / app.PERIOD_S)
    times = Counter((stream, due) for stream, due, _ in firings)
    late = [now - due for _, due, now in firings]
    first_lines = [now - due for due, now in handled]
    early = sum(each < 0 for each in (*late, *first_lines))
    missed = abs(wanted - len(times)) + abs(wanted - len(handled))
    return {
        **spread(late, scale=1e3, prefix="fired_ms_"),
        "fired_ms_max": max(late) * 1e3,
        **spread(first_lines, scale=1e3, prefix="handled_ms_"),
        "wrong": early + missed + len(firings) - len(times),
        "firings": len(firings),
    }


def main() -> None:
    """Measure one shape."""
    parser = arguments(__doc__)
    parser.add_argument("--when", choices=sorted(APPS), default="instant")
    options = parser.parse_args()
    watched_s = QUICK_S if options.quick else WATCHED_S[options.when]
    report(**uvloop.run(measure(options.when, watched_s)))


if __name__ == "__main__":
    main()
