"""Row 17: from the closing of a file to the first line of the handler that is told of it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import uvloop

from bench.dropping import count_of, dropped, samples
from bench.figures import arguments, report, scratch, spread
from bench.workloads.node import Bench, bench_of
from headrace.model.effects import Change

APP = '''"""Notes when it was told of each file."""

import time

from headrace import App, Event, Files

app = App("inbox")
handled = app.stream("handled")


@app.function(Files({folder!r}, settle=0), name="note", output=handled)
def note(event: Event[dict]) -> dict:
    now = time.monotonic()
    return {{"name": event.value["name"], "event": event.value["event"], "began": now}}
'''
PATIENCE_S = 10.0


class ToldWrongly(Exception):
    """A file was not told of, or more than once."""


class Told:
    """Sees the handlers' notes land."""

    def __init__(self, count: int) -> None:
        self._left = count
        self.all = asyncio.Event()

    def landed(self, change: Change) -> None:
        """Count what a change holds of them."""
        self._left -= sum(each.count for each in change.appends if each.stream == "handled")
        if self._left <= 0:
            self.all.set()


async def began(bench: Bench, count: int) -> dict[str, float]:
    """When the handler began for each file.

    Raises:
        ToldWrongly: It was not told of each of them once.
    """
    chunks = await bench.node.broker.fetch("handled", 0, 0, events=10 * count, size=8 << 20)
    notes = [json.loads(event.value) for chunk in chunks for event in chunk.events()]
    if len({note["name"] for note in notes}) != len(notes) or len(notes) != count:
        raise ToldWrongly(f"{len(notes)} events of {count} files: {notes[:5]}")
    return {note["name"]: note["began"] for note in notes}


async def measure(folder: Path, app: Path, count: int) -> dict[str, float]:
    """Have files dropped into the folder of a running node."""
    async with bench_of(app) as bench:
        told = Told(count)
        bench.storage.landed = told.landed
        closed = await dropped(str(folder), count)
        async with asyncio.timeout(PATIENCE_S):
            await told.all.wait()
        heard = await began(bench, count)
    return spread(samples(closed, heard), scale=1e3, prefix="handled_ms_")


def main() -> None:
    """Measure."""
    options = arguments(__doc__).parse_args()
    with scratch("inbox") as place:
        folder, app = place / "inbox", place / "inbox.py"
        folder.mkdir()
        app.write_text(APP.format(folder=str(folder)))
        report(**uvloop.run(measure(folder, app, count_of(quick=options.quick))))


if __name__ == "__main__":
    main()
