"""A function misbehaves, and its neighbours' 99th percentile stays within twice what it was (I10).

A quiet spell and one beside a misbehaving function take turns, so that whatever else the machine does
falls on both alike. What is timed is a neighbour's event from its publish to its handler's line.
"""

from __future__ import annotations

import json
import time
from random import Random

from tests.auditor.outside import Finding
from tests.integration.faults.hostility import ATTACKS
from tests.integration.faults.processes import wait_until
from tests.integration.faults.results import Result, figures_of, leave
from tests.integration.faults.sites import Site

KINDS = ("loop", "memory", "shouting", "quit", "garbage")
BEATS = 60
RATIO = 2.0
FLOOR_S = 0.01
"""Below this a percentile of a shared machine is its scheduler's: a ratio of less means nothing."""

APP = '''
"""A neighbour that wants to be quick, and functions that misbehave."""

import contextlib
import ctypes
import os
import signal
import time

from headrace import App, Event, Resources, Retry, Scaling

app = App("street", owner="campaign")
beats = app.stream("beats")


@app.function(beats)
def beat(event: Event[dict]):
    """A quick neighbour."""
    handle = os.open("{trace}", os.O_WRONLY | os.O_APPEND)
    os.write(handle, f"{event.value['n']} {time.monotonic()}\\n".encode())
    os.close(handle)
'''
_BAD = '''
{name}_stream = app.stream("{name}")


@app.function(
    {name}_stream, timeout=1.0, retry=Retry(attempts=1), breaker=None, scaling=Scaling(max=1),
    resources=Resources(memory=256 << 20, processes=16, files=64),
)
def {name}(event):
    """Misbehaves."""
    {body}
'''


def neighbours(site: Site, times: int, seed: int) -> Result:
    """So many pairs of spells for each kind of misbehaviour."""
    random = Random(seed)
    app = APP
    for name in KINDS:
        app += _BAD.format(name=name, body=ATTACKS[name].strip())
    site.write(app)
    site.start()
    spell(site, 0)
    calm: list[float] = []
    beside: list[float] = []
    count = BEATS
    for _ in range(times):
        for name in random.sample(KINDS, len(KINDS)):
            calm += spell(site, count)
            count += BEATS
            # As many as keep it at its worst for the whole spell.
            for _ in range(2):
                site.ask(f"/streams/{name}", body=b'{"n": 1}')
            beside += spell(site, count)
            count += BEATS
            wait_until(
                lambda: not sum(row["lag"] for row in site.get("/lag")["lag"]), seconds=30,
                what=lambda: f"the misbehaving are given up {site.said()}",
            )  # fmt: skip
    before, after = percentile(calm), percentile(beside)
    ratio = after / max(before, FLOOR_S)
    findings = [*leave(site)]
    if ratio > RATIO:
        findings.append(
            Finding("I10", f"a neighbour's p99 is {1e3 * after:.1f} ms, {1e3 * before:.1f} alone")
        )
    return Result(
        fault="neighbour of a misbehaving function", times=times * len(KINDS), events=count,
        findings=[str(finding) for finding in findings],
        figures={
            "worst_p99_ratio": round(after / before, 2), "p99_alone_ms": round(1e3 * before, 1),
            "p99_beside_ms": round(1e3 * after, 1), **figures_of(site),
        },
    )  # fmt: skip


def spell(site: Site, first: int) -> list[float]:
    """Seconds from the publish of each beat to its handler's line."""
    began: dict[int, float] = {}
    for number in range(first, first + BEATS):
        began[number] = time.monotonic()
        site.ask("/streams/beats", body=json.dumps({"n": number}).encode())
        time.sleep(0.01)
    last = first + BEATS - 1
    wait_until(
        lambda: f"{last} " in site.trace_path.read_text()[-4_000:], seconds=20,
        what=lambda: f"the last beat is handled {site.said()}",
    )  # fmt: skip
    found: dict[int, float] = {}
    for line in site.trace_path.read_text().splitlines():
        number_, ended = line.split()
        found.setdefault(int(number_), float(ended))
    return [found[number] - since for number, since in began.items()]


def percentile(seconds: list[float]) -> float:
    """The 99th."""
    return sorted(seconds)[min(round(0.99 * len(seconds)), len(seconds) - 1)]
