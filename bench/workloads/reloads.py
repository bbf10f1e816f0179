"""An app is edited again and again while it is called and fed; what its clients and its streams notice.

Calls go over connections that stay open, events are posted in batches with a number each. Counted are
answers that are not 200, numbers that are missing, there twice or out of order, and how long calls took
with edits and without. An edit counts as loaded when a call is answered by it.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from bench.figures import arguments, percentile, report
from bench.workloads.serving import Serving, serving

APP = """
from headrace import App, Http

VERSION = {version}
app = App("shop")
orders = app.stream("orders", partitions=4)
kept = app.stream("kept", partitions=4)
sorted_out = app.stream("sorted", partitions=4)


@app.function(Http("POST", "/price"))
def price(event):
    return VERSION


@app.function(orders, batch_size={size})
def keep(event, context):
    context.publish(kept, event.value, key=event.key)


@app.function(orders, order="key", parallelism=2, batch_size={size})
def sort(event, context):
    context.publish(sorted_out, event.value, key=event.key)
"""
EVENTS = "application/vnd.headrace.events+x-ndjson"
KEYS = 50
BATCH = 100
THINK_S = 0.1
WARM_S = 2.0
PAGE = 1_000
PATIENCE_S = 60.0


def code(version: int) -> str:
    """The app as it is edited: every third edit changes how events are delivered as well."""
    return APP.format(version=version, size=100 + version // 3 % 2)


@dataclass
class Seen:
    """What the clients and the streams noticed.

    Attributes:
        statuses: Answers to calls, by status; 0 is a connection that was cut.
        took: Seconds that calls took.
        published: Events that were taken.
        missing: Of those, by the stream that they are missing in.
        doubled: By stream.
        disordered: Events behind a later one of their key, by stream.
        loaded: Seconds from each edit to the first answer by it.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    took: list[float] = field(default_factory=list)
    published: int = 0
    missing: dict[str, int] = field(default_factory=dict)
    doubled: dict[str, int] = field(default_factory=dict)
    disordered: dict[str, int] = field(default_factory=dict)
    loaded: list[float] = field(default_factory=list)


class Line:
    """A connection that stays open."""

    def __init__(self, url: str) -> None:
        self._at = urlsplit(url)
        self._ends: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(
        self, path: str, body: bytes, kind: str = "application/json"
    ) -> tuple[int, bytes]:
        """Status and body of the answer; 0 where there was none."""
        try:
            if self._ends is None:
                self._ends = await asyncio.open_connection(self._at.hostname, self._at.port)
            reader, writer = self._ends
            writer.write(
                f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
                f"Content-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(head.partition("content-length: ")[2].partition("\r\n")[0] or 0)
            return int(head.split(" ", 2)[1]), await reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError):
            self.close()
            return 0, b""

    def close(self) -> None:
        """Close it; the next request opens another one."""
        if self._ends is not None:
            self._ends[1].close()
            self._ends = None


async def load(
    node: Serving,
    seen: Seen,
    *,
    connections: int,
    rate: int,
    numbers: itertools.count[int],
    until: Callable[[], bool],
) -> None:
    """Call and publish until it is over."""

    async def call() -> None:
        line = Line(node.url)
        while not until():
            began = time.perf_counter()
            status, _ = await line.post("/price", b"null")
            seen.took.append(time.perf_counter() - began)
            seen.statuses[status] += 1
            await asyncio.sleep(THINK_S)
        line.close()

    async def publish() -> None:
        line, due = Line(node.url), time.perf_counter()
        while not until():
            events = [
                {"key": f"k{number % KEYS}", "value": number, "id": str(number)}
                for number in itertools.islice(numbers, BATCH)
            ]
            body = "\n".join(map(json.dumps, events)).encode()
            while (status := (await line.post("/-/v1/streams/orders", body, EVENTS))[0]) != 202:
                seen.statuses[status] += 1
            seen.published += BATCH
            due += BATCH / rate
            await asyncio.sleep(max(due - time.perf_counter(), 0))
        line.close()

    await asyncio.gather(publish(), *(call() for _ in range(connections)))


async def edit(node: Serving, app: Path, version: int, seen: Seen) -> None:
    """Save another version, and wait until it answers."""
    line = Line(node.url)
    began = time.perf_counter()
    await asyncio.to_thread(app.write_text, code(version))
    while (await line.post("/price", b"null"))[1] != str(version).encode():
        if time.perf_counter() - began > PATIENCE_S:
            raise TimeoutError(f"version {version} does not answer")
        await asyncio.sleep(0.005)
    seen.loaded.append(time.perf_counter() - began)
    line.close()


async def campaign(
    node: Serving, app: Path, *, reloads: int, connections: int, rate: int
) -> tuple[Seen, Seen]:
    """What was noticed before the first edit, and over all edits."""
    numbers, warming, before, seen = itertools.count(), Seen(), Seen(), Seen()
    # A node that has just started has its first instances forked.
    for phase, seconds in ((warming, WARM_S), (before, max(reloads * 0.1, 2.0))):
        ends = time.perf_counter() + seconds
        await load(
            node,
            phase,
            connections=connections,
            rate=rate,
            numbers=numbers,
            until=partial(_is_past, ends),
        )
    over = False
    loading = asyncio.create_task(
        load(node, seen, connections=connections, rate=rate, numbers=numbers, until=lambda: over)
    )
    for version in range(1, reloads + 1):
        await edit(node, app, version, seen)
    over = True
    await loading
    total = warming.published + before.published + seen.published
    for stream in ("kept", "sorted"):
        await asyncio.to_thread(compare, node, stream, total, seen)
    return before, seen


def _is_past(moment: float) -> bool:
    return time.perf_counter() > moment


def compare(node: Serving, stream: str, total: int, seen: Seen) -> None:
    """Count what is missing in a stream, there twice or out of order."""
    until = time.monotonic() + PATIENCE_S
    while node.get(f"/-/v1/streams/{stream}")["records"] < total:
        if time.monotonic() > until:
            break
        time.sleep(0.1)
    values, last, disordered = Counter[int](), dict[str, int](), 0
    cursor = ""
    while True:
        page = node.get(f"/-/v1/streams/{stream}/records?limit={PAGE}{cursor}")
        if not page["records"]:
            break
        cursor = f"&cursor={page['cursor']}"
        for record in page["records"]:
            values[record["value"]] += 1
            disordered += record["value"] < last.get(record["key"], -1)
            last[record["key"]] = record["value"]
    seen.missing[stream] = sum(number not in values for number in range(total))
    seen.doubled[stream] = sum(count - 1 for count in values.values())
    seen.disordered[stream] = disordered


def main() -> None:
    """Edit 100 times under 64 connections and 2,000 events a second."""
    parser = arguments(__doc__)
    parser.add_argument("--reloads", type=int, default=100)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="headrace-reloads-"))
    try:
        folder.chmod(0o755)
        (app := folder / "app" / "shop.py").parent.mkdir()
        app.write_text(code(0))
        with serving(str(app), folder / "data", verb="dev") as node:
            before, seen = asyncio.run(
                campaign(
                    node,
                    app,
                    reloads=3 if options.quick else options.reloads,
                    connections=8 if options.quick else 64,
                    rate=2_000,
                )
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sys.stderr.write(f"answers: {dict(seen.statuses)}\n")
    report(
        not_ok=sum(count for status, count in seen.statuses.items() if status != 200),
        missing=sum(seen.missing.values()),
        doubled=sum(seen.doubled.values()),
        disordered=sum(seen.disordered.values()),
        published=before.published + seen.published,
        calls=len(seen.took),
        still_ms_p99=percentile(before.took, 0.99) * 1e3,
        call_ms_p99=percentile(seen.took, 0.99) * 1e3,
        call_ms_p50=percentile(seen.took, 0.5) * 1e3,
        call_ms_max=max(seen.took) * 1e3,
        loaded_ms_p50=percentile(seen.loaded, 0.5) * 1e3,
        loaded_ms_p99=percentile(seen.loaded, 0.99) * 1e3,
    )


if __name__ == "__main__":
    main()
