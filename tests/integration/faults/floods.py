"""More than a slow consumer can take: the backlog grows, the node does not, producers hear of it.

Many producers at once push whole batches, each again until it is taken; a node that is told to work
on few requests at a time answers the others 429. Nothing acknowledged may be missing, memory may not
follow the backlog, and a node killed amid it is back within five seconds.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from tests.auditor.outside import Finding
from tests.integration.faults.doors import address, answered, connected, post
from tests.integration.faults.load import EVENTS
from tests.integration.faults.processes import wait_until
from tests.integration.faults.results import (
    RESTART_S,
    SPARE_DESCRIPTORS,
    Result,
    figures_of,
    leave,
)
from tests.integration.faults.sites import Ended, Site

STEP_EVENTS = 50_000
BATCH_EVENTS = 500
PRODUCERS = 96
REQUESTS_AT_ONCE = 8
GROWTH_BYTES = 48 << 20
"""What caches may still take after the first step; a million waiting events would be 200 MB."""

APP = '''
"""A consumer that is slower than anybody."""

import os
import time

from headrace import App, Batch

app = App("slow", owner="campaign")
orders = app.stream("orders", partitions=4)


@app.function(orders, batch_size=10, timeout=30)
def dawdle(events: Batch[dict]) -> None:
    """Ten events, and a rest."""
    handle = os.open("{trace}", os.O_WRONLY | os.O_APPEND)
    os.write(handle, b"begun\\n")
    os.close(handle)
    time.sleep(0.2)
'''


def flood(site: Site, times: int, seed: int) -> Result:
    """Push `times` steps of events, look at the node's memory, kill it, look again."""
    site.write(APP)
    site.environ = {"HEADRACE_MAX_REQUESTS": str(REQUESTS_AT_ONCE)}
    site.start()
    findings: list[Finding] = []
    refused = 0
    sizes: list[int] = []
    began = time.monotonic()
    for step in range(times):
        refused += asyncio.run(_push(address(site), f"{seed}-{step}"))
        sizes.append(_resident(site.host.pid))
    took = time.monotonic() - began
    wanted = times * STEP_EVENTS
    findings += _held(site, wanted)
    if not refused:
        findings.append(Finding("I9", "no producer was told to slow down"))
    if (grown := sizes[-1] - sizes[0]) > GROWTH_BYTES:
        findings.append(Finding("I9", f"the node has grown by {grown >> 20} MiB: {sizes}"))
    site.hang_up()
    site.kill()
    traced = site.trace_path.stat().st_size
    began = time.monotonic()
    site.start()
    wait_until(
        lambda: site.trace_path.stat().st_size > traced,
        seconds=20,
        every=0.002,
        what=lambda: f"the first event is begun {site.said()}",
    )
    back = time.monotonic() - began
    if back > RESTART_S:
        findings.append(Finding("I8", f"at work again only after {back:.1f} s"))
    findings += _held(site, wanted)
    findings += leave(site, spare=2 * SPARE_DESCRIPTORS)
    return Result(
        fault="flood of a slow consumer",
        times=times,
        events=wanted,
        findings=[str(finding) for finding in findings],
        figures={
            "answered_429": refused,
            "events_per_s": round(wanted / took),
            "worst_growth_mib": max(grown, 0) >> 20,
            "resident_mib": sizes[-1] >> 20,
            "slowest_first_event_s": round(back, 3),
            **figures_of(site),
        },
    )


async def _push(where: tuple[str, int], name: str) -> int:
    """One step from many producers; how often they were told to come again."""
    # Made before anybody sends: producers that write their events meanwhile are not flood.
    batches = [_batch(name, number) for number in range(STEP_EVENTS // BATCH_EVENTS)]
    refused = 0

    async def produce() -> None:
        nonlocal refused
        async with connected(where) as (reader, writer):
            while batches:
                request = post(
                    "/-/v1/streams/orders", batches.pop(), b"content-type: " + EVENTS.encode()
                )
                while True:
                    writer.write(request)
                    answer = await answered(reader, 60)
                    if answer.status == 202:
                        break
                    if answer.status != 429:
                        raise Ended(f"a producer was answered {answer}")
                    refused += 1
                    await asyncio.sleep(0.02)

    await asyncio.gather(*(produce() for _ in range(PRODUCERS)))
    return refused


def _batch(name: str, number: int) -> bytes:
    return b"".join(
        b'{"id": "%s-%d-%d", "key": "k%d", "value": {"n": %d, "pad": "%s"}}\n'
        % (name.encode(), number, each, each, each, b"x" * 60)
        for each in range(BATCH_EVENTS)
    )


def _held(site: Site, wanted: int) -> list[Finding]:
    held = sum(extent["high"] for extent in site.get("/-/v1/streams/orders")["extents"])
    return (
        [] if held == wanted else [Finding("I1", f"{held} events are there, {wanted} were taken")]
    )


def _resident(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
