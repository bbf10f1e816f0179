"""SIGSTOP of an instance beyond its timeout, and of the host for longer than any timeout."""

from __future__ import annotations

import signal
import time
from random import Random

from tests.integration.faults.load import TIMEOUT_S
from tests.integration.faults.processes import children, wait_until
from tests.integration.faults.results import Result
from tests.integration.faults.rounds import at_work, instances_of, judged, pauses, zygote_of
from tests.integration.faults.sites import Site

LATE_S = 0.5
"""How long after its timeout a stopped instance may live; the same again lets a slow machine look."""


def pause_instances(site: Site, times: int, seed: int) -> Result:
    """A busy instance stops dead: it is killed on time, and what it held is run again."""
    random = Random(seed)
    load = at_work(site, seed)
    slowest = 0.0
    done = 0
    while done < times:
        time.sleep(random.uniform(0.02, 0.2))
        busy = instances_of(site, "busy")
        if not busy or not (victim := random.choice(busy)).send(signal.SIGSTOP):
            continue
        took = wait_until(
            lambda one=victim: not one.is_alive(),  # type: ignore[misc]
            seconds=TIMEOUT_S + 10,
            what=lambda: f"a stopped instance is killed {site.said()}",
        )
        slowest = max(slowest, took)
        done += 1
    return judged(
        "SIGSTOP of an instance",
        load,
        times,
        slowest_kill_s=round(slowest, 3),
        timeout_s=TIMEOUT_S,
    )


def pause_hosts(site: Site, times: int, seed: int) -> Result:
    """The host stops for longer than its functions may take, and goes on as if nothing had been."""
    random = Random(seed)
    load = at_work(site, seed)
    for pause in pauses(random, times, 0.1, 0.5):
        time.sleep(pause)
        host = site.host
        assert host.send(signal.SIGSTOP)
        wait_until(lambda: host.state() == "T", seconds=5, what="the host is stopped")  # noqa: B023 - asked at once
        time.sleep(random.uniform(TIMEOUT_S, 2 * TIMEOUT_S))
        host.send(signal.SIGCONT)
    return judged("SIGSTOP of the host", load, times)


def kill_host_of_stopped(site: Site, times: int, seed: int) -> Result:
    """The host dies while an instance is stopped, as hibernating ones are: it must not stay behind."""
    random = Random(seed)
    load = at_work(site, seed)
    done = 0
    while done < times:
        time.sleep(random.uniform(0.1, 0.3))
        there = instances_of(site)
        if there and random.choice(there).send(signal.SIGSTOP):
            site.kill()
            site.start()
            done += 1
    return judged("kill -9 of a host with a stopped instance", load, times)


def pause_zygotes(site: Site, times: int, seed: int) -> Result:
    """A zygote hangs and an instance of its dies: it is found out, replaced, and all goes on."""
    random = Random(seed)
    load = at_work(site, seed)
    slowest = 0.0
    for pause in pauses(random, times, 0.1, 0.4):
        time.sleep(pause)
        zygote = zygote_of(site)
        assert zygote.send(signal.SIGSTOP)
        random.choice(children(zygote.pid)).send(signal.SIGKILL)
        took = wait_until(
            lambda one=zygote: not one.is_alive(),  # type: ignore[misc]
            seconds=60,
            what=lambda: f"a hung zygote is replaced {site.said()}",
        )
        slowest = max(slowest, took)
    return judged("SIGSTOP of a zygote", load, times, slowest_replacement_s=round(slowest, 3))
