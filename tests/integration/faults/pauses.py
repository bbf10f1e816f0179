"""SIGSTOP of an instance beyond its timeout, and of the host for longer than any timeout."""

from __future__ import annotations

import signal
import time
from random import Random

from tests.integration.faults.load import APP, TIMEOUT_S, Load
from tests.integration.faults.processes import children, process, wait_until
from tests.integration.faults.results import Result, figures_of, result, settle
from tests.integration.faults.sites import Site

LATE_S = 0.5
"""How long after its timeout a stopped instance may live; the same again lets a slow machine look."""


def pause_instances(site: Site, times: int, seed: int) -> Result:
    """A busy instance stops dead: it is killed on time, and what it held is run again."""
    random = Random(seed)
    site.write(APP)
    site.start()
    load = Load(site, seed)
    slowest = 0.0
    done = 0
    while done < times:
        time.sleep(random.uniform(0.02, 0.2))
        busy = [each["pid"] for each in site.instances() if each["state"] == "busy"]
        ours = {each.pid: each for each in site.family()}
        if not busy or (victim := ours.get(random.choice(busy))) is None:
            continue
        if not victim.send(signal.SIGSTOP):
            continue
        began = time.monotonic()
        wait_until(
            lambda one=victim: not one.is_alive(),  # type: ignore[misc]
            seconds=TIMEOUT_S + 10,
            what=lambda: f"a stopped instance is killed {site.said()}",
        )
        slowest = max(slowest, time.monotonic() - began)
        done += 1
    account = load.finish()
    findings = settle(site, account)
    return result(
        "SIGSTOP of an instance", times, account, findings,
        slowest_kill_s=round(slowest, 3), timeout_s=TIMEOUT_S, **figures_of(site),
    )  # fmt: skip


def pause_hosts(site: Site, times: int, seed: int) -> Result:
    """The host stops for longer than its functions may take, and goes on as if nothing had been."""
    random = Random(seed)
    site.write(APP)
    site.start()
    load = Load(site, seed)
    for _ in range(times):
        time.sleep(random.uniform(0.1, 0.5))
        host = process(site.host.pid)
        assert host is not None
        assert host.send(signal.SIGSTOP)
        wait_until(lambda: host.state() == "T", seconds=5, what="the host is stopped")  # noqa: B023
        time.sleep(random.uniform(TIMEOUT_S, 2 * TIMEOUT_S))
        host.send(signal.SIGCONT)
    account = load.finish()
    findings = settle(site, account)
    return result("SIGSTOP of the host", times, account, findings, **figures_of(site))


def kill_host_of_stopped(site: Site, times: int, seed: int) -> Result:
    """The host dies while an instance is stopped, as hibernating ones are: it must not stay behind."""
    random = Random(seed)
    site.write(APP)
    site.start()
    load = Load(site, seed)
    done = 0
    while done < times:
        time.sleep(random.uniform(0.1, 0.3))
        ours = {each.pid: each for each in site.family()}
        there = [ours[each["pid"]] for each in site.instances() if each["pid"] in ours]
        if there and random.choice(there).send(signal.SIGSTOP):
            site.kill()
            site.start()
            done += 1
    account = load.finish()
    findings = settle(site, account)
    return result(
        "kill -9 of a host with a stopped instance", times, account, findings, **figures_of(site)
    )


def pause_zygotes(site: Site, times: int, seed: int) -> Result:
    """A zygote hangs and an instance of its dies: it is found out, replaced, and all goes on."""
    random = Random(seed)
    site.write(APP)
    site.start()
    load = Load(site, seed)
    slowest = 0.0
    for _ in range(times):
        time.sleep(random.uniform(0.1, 0.4))
        wait_until(site.instances, seconds=20, what=lambda: f"instances run {site.said()}")
        listed = {each["pid"] for each in site.instances()}
        zygote = next(each for each in children(site.host.pid) if each.pid not in listed)
        assert zygote.send(signal.SIGSTOP)
        random.choice(children(zygote.pid)).send(signal.SIGKILL)
        slowest = max(
            slowest,
            wait_until(
                lambda one=zygote: not one.is_alive(),  # type: ignore[misc]
                seconds=60,
                what=lambda: f"a hung zygote is replaced {site.said()}",
            ),
        )
    account = load.finish()
    findings = settle(site, account)
    return result(
        "SIGSTOP of a zygote", times, account, findings,
        slowest_replacement_s=round(slowest, 3), **figures_of(site),
    )  # fmt: skip
