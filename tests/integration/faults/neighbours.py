"""A function misbehaves, and its neighbours' 99th percentile stays within twice another's (I10).

The other is the same function on a node where nothing misbehaves, which runs beside the first and gets each
event at the same time: whatever the machine does, a processor taken by an endless loop included, falls
on both alike, and what is left is what the node does to the neighbour. What is timed is an event from
its publish to its handler's line.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from random import Random

from tests.auditor.outside import Finding
from tests.integration.faults.hostility import ATTACKS
from tests.integration.faults.processes import wait_until
from tests.integration.faults.results import Result, figures_of, leave
from tests.integration.faults.sites import Site, site

KINDS = ("loop", "memory", "shouting", "quit", "garbage")
BEATS = 60
RATIO = 2.0
PAUSE_S = 0.01
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


def neighbours(place: Site, times: int, seed: int) -> Result:
    """So many spells beside each kind of misbehaviour."""
    random = Random(seed)
    app = APP
    for name in KINDS:
        app += _BAD.format(name=name, body=ATTACKS[name].strip())
    place.write(app)
    place.start()
    disturbed, undisturbed = list[float](), list[float]()
    with site() as still:
        still.write(APP)
        still.start()
        spell((place, still), 0)
        count = BEATS
        for _ in range(times):
            for name in random.sample(KINDS, len(KINDS)):
                # As many as keep it at its worst for the whole spell.
                for _ in range(2):
                    place.ask(f"/-/v1/streams/{name}", body=b'{"n": 1}')
                beside, alone = spell((place, still), count)
                disturbed += beside
                undisturbed += alone
                count += BEATS
                wait_until(
                    lambda: not sum(row["lag"] for row in place.get("/-/v1/lag")["lag"]),
                    seconds=30,
                    what=lambda: f"the misbehaving are given up {place.said()}",
                )
        findings = leave(place)
        still.hang_up()
        still.stop()
    after, before = percentile(disturbed), percentile(undisturbed)
    ratio = after / max(before, FLOOR_S)
    if ratio > RATIO:
        findings.append(
            Finding("I10", f"a neighbour's p99 is {1e3 * after:.1f} ms, {1e3 * before:.1f} alone")
        )
    return Result(
        fault="neighbour of a misbehaving function",
        times=times * len(KINDS),
        events=2 * count,
        findings=[str(finding) for finding in findings],
        figures={
            "worst_p99_ratio": round(ratio, 2),
            "p99_alone_ms": round(1e3 * before, 1),
            "p99_beside_ms": round(1e3 * after, 1),
            **figures_of(place),
        },
    )


def spell(places: Sequence[Site], first: int) -> list[list[float]]:
    """Of each node the seconds from the publish of each beat to its handler's line."""
    began: list[dict[int, float]] = [{} for _ in places]
    numbers = range(first, first + BEATS)
    for number in numbers:
        # The one that comes second finds the machine busy with the first: they take turns.
        for at in range(len(places)) if number % 2 else reversed(range(len(places))):
            began[at][number] = time.monotonic()
            places[at].ask("/-/v1/streams/beats", body=json.dumps({"n": number}).encode())
        time.sleep(PAUSE_S)
    return [taken(each, numbers, since) for each, since in zip(places, began, strict=True)]


def taken(place: Site, numbers: Sequence[int], began: Mapping[int, float]) -> list[float]:
    """The seconds each of them took, once the last is handled."""
    wait_until(
        lambda: f"{numbers[-1]} " in place.trace_path.read_text()[-4_000:],
        seconds=20,
        what=lambda: f"the last beat is handled {place.said()}",
    )
    found: dict[int, float] = {}
    for line in place.trace_path.read_text().splitlines():
        number, at = line.split()
        found.setdefault(int(number), float(at))
    return [found[number] - began[number] for number in numbers]


def percentile(seconds: list[float]) -> float:
    """The 99th."""
    return sorted(seconds)[min(round(0.99 * len(seconds)), len(seconds) - 1)]
