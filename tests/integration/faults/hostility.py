"""Handlers that mean harm, on a whole node: the instance dies, the host lives, the others are served.

Each attack is a function on a stream of its own; its one event must end as a dead letter after the
attempts its policy gives it, while another function's events flow on as if nothing were the matter.
"""

from __future__ import annotations

import json
import time
from random import Random
from typing import Any

from tests.auditor.outside import Finding
from tests.integration.faults.load import APP, TIMEOUT_S, Load
from tests.integration.faults.processes import descriptors, wait_until
from tests.integration.faults.results import Result, figures_of, result, settle
from tests.integration.faults.sites import Site

ATTACKS = {
    "loop": "while True: pass",
    "deaf": """
    for number in range(1, 32):
        with contextlib.suppress(OSError, ValueError): signal.signal(number, signal.SIG_IGN)
    while True:
        with contextlib.suppress(BaseException): time.sleep(60)
""",
    "segfault": "ctypes.string_at(0)",
    "quit": "os._exit(0)",
    "memory": "bytearray(1 << 40)\n    kept = []\n    while True: kept.append(bytearray(8 << 20))",
    "garbage": """
    for number in range(3, 256):
        with contextlib.suppress(OSError): os.write(number, b"\\xff" * 4096)
    os._exit(0)
""",
    "closing": "os.closerange(0, 256)\n    os._exit(0)",
    "descriptors": "kept = []\n    while True: kept.append(open('/dev/null'))",
    "forks": """
    while True:
        if os.fork() == 0: time.sleep(600)
""",
    "daemon": """
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0: time.sleep(600)
        os._exit(0)
    os._exit(0)
""",
    "shouting": "while True: print('x' * 10_000)",
    "stopping": "os.kill(os.getpid(), signal.SIGSTOP)\n    time.sleep(600)",
}
TRIES = 2
ENDED_S = 30.0
NEIGHBOUR_S = 2.0

_HEAD = """
import contextlib
import ctypes
import signal
import time

from headrace import Resources

"""
_BEAT = """
beats = app.stream("beats")


@app.function(beats)
def beat(event):
    \"\"\"A quick neighbour.\"\"\"
"""
_ATTACK = '''
{name}_stream = app.stream("{name}")


@app.function(
    {name}_stream, timeout=0.5, retry=Retry(attempts={tries}, initial_delay=0.01), breaker=None,
    resources=Resources(memory=256 << 20, processes=16, files=64),
)
def {name}(event):
    """An attack."""
    {body}
'''


def attack(site: Site, times: int, seed: int) -> Result:
    """Run every attack `times` times while the load goes on."""
    random = Random(seed)
    app = APP + _HEAD + _BEAT
    for name, body in ATTACKS.items():
        app += _ATTACK.format(name=name, body=body.strip(), tries=TRIES)
    site.write(app)
    site.start()
    load = Load(site, seed, pause=0.05)
    before = _latencies(site, 15)
    host, opened = site.host, descriptors(site.host.pid)
    findings: list[Finding] = []
    during: list[float] = []
    for _ in range(times):
        for name in random.sample(list(ATTACKS), len(ATTACKS)):
            sent = _letters(site, name)
            site.ask(f"/-/v1/streams/{name}", body=b'{"n": 1}')
            during += _latencies(site, 3)
            wait_until(
                lambda old=sent, one=name: _letters(site, one) > old,  # type: ignore[misc]
                seconds=ENDED_S,
                every=0.05,
                what=lambda one=name: f"`{one}` becomes a dead letter {site.said()}",  # type: ignore[misc]
            )
    for name in ATTACKS:
        for letter in site.get(f"/-/v1/dead?function=load.{name}&limit=1000")["dead"]:
            if letter["attempts"] != TRIES:
                findings.append(Finding("I5", f"{name}: {letter['attempts']} attempts {letter}"))
    if site.host != host:
        findings.append(Finding("I7", "the host has died"))
    if max(during) > NEIGHBOUR_S:
        findings.append(Finding("I10", f"a neighbour's event took {max(during):.1f} s"))
    account = load.finish()
    site.wait_drained()
    if descriptors(host.pid) > opened + 6 * len(site.instances()) + 24:
        findings.append(Finding("I7", f"{descriptors(host.pid)} descriptors, {opened} before"))
    findings += settle(site, account)
    return result(
        "hostile handlers",
        times * len(ATTACKS),
        account,
        findings,
        attacks=len(ATTACKS),
        p50_before_ms=_percentile(before, 0.5),
        p50_during_ms=_percentile(during, 0.5),
        worst_during_ms=_percentile(during, 1.0),
        timeout_s=TIMEOUT_S,
        **figures_of(site),
    )


def _letters(site: Site, name: str) -> int:
    found: list[Any] = site.get(f"/-/v1/dead?function=load.{name}&limit=1000")["dead"]
    return len(found)


def _latencies(site: Site, count: int) -> list[float]:
    """Seconds from a neighbour's publish until its event is finished, as a client sees it."""
    found = []
    for _ in range(count):
        answer = json.loads(site.ask("/-/v1/streams/beats", body=b'{"n": 0}'))
        position = answer["positions"][0]
        stream, partition, offset = position.rsplit("/", 2)
        began = time.monotonic()
        wait_until(
            lambda p=partition, o=offset: any(  # type: ignore[misc]
                row["position"] > int(o)
                for row in site.get("/-/v1/lag?function=load.beat")["lag"]
                if row["partition"] == int(p)
            ),
            seconds=20,
            every=0.002,
            what=lambda: f"a beat is handled {site.said()}",
        )
        found.append(time.monotonic() - began)
        assert stream == "beats"
    return found


def _percentile(seconds: list[float], share: float) -> float:
    ordered = sorted(seconds)
    return round(1_000 * ordered[min(int(share * len(ordered)), len(ordered) - 1)], 1)
