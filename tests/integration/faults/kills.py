"""kill -9 of the host, of instances and of zygotes, at random moments under load."""

from __future__ import annotations

import signal
import time
from random import Random

from tests.integration.faults.load import APP, Load
from tests.integration.faults.processes import Process, children, wait_until
from tests.integration.faults.results import Result, figures_of, result, settle
from tests.integration.faults.sites import Site


def kill_hosts(site: Site, times: int, seed: int) -> Result:
    """The whole node dies and is started again, over and over."""
    random = Random(seed)
    site.write(APP)
    site.start()
    load = Load(site, seed)
    for _ in range(times):
        time.sleep(random.uniform(0.05, 0.8))
        site.kill()
        site.start()
    return _judged("kill -9 of the host", site, load, times)


def kill_instances(site: Site, times: int, seed: int) -> Result:
    """Single instances die, the busy ones first; each run goes back and is run again."""
    random = Random(seed)
    site.write(APP)
    site.start()
    load = Load(site, seed)
    done = 0
    while done < times:
        time.sleep(random.uniform(0.02, 0.25))
        there = site.instances()
        busy = [each for each in there if each["state"] == "busy"]
        victim = _chosen(random, site, [each["pid"] for each in busy or there])
        if victim is not None and victim.send(signal.SIGKILL):
            done += 1
    return _judged("kill -9 of an instance", site, load, times)


def kill_zygotes(site: Site, times: int, seed: int) -> Result:
    """The process that forks the instances dies, and takes them with it."""
    random = Random(seed)
    site.write(APP)
    site.start()
    load = Load(site, seed)
    for _ in range(times):
        time.sleep(random.uniform(0.05, 0.6))
        wait_until(site.instances, seconds=20, what=lambda: f"instances run {site.said()}")
        listed = {each["pid"] for each in site.instances()}
        victim = next(each for each in children(site.host.pid) if each.pid not in listed)
        family = site.family()
        assert victim.send(signal.SIGKILL)
        wait_until(
            lambda old=family: not any(each.is_alive() for each in old),  # type: ignore[misc]
            seconds=10,
            what=lambda: f"I7: a dead zygote's instances end {site.said()}",
        )
    return _judged("kill -9 of a zygote", site, load, times)


def storm(site: Site, times: int, seed: int) -> Result:
    """Host, zygote and instances die and stop, in any order and at once."""
    random = Random(seed)
    site.write(APP)
    site.start()
    load = Load(site, seed)
    for _ in range(times):
        time.sleep(random.uniform(0.02, 0.3))
        match random.choice(("host", "child", "children", "stop", "child then host")):
            case "host":
                site.kill()
                site.start()
            case "child":
                _strike(random, site, 1, signal.SIGKILL)
            case "children":
                _strike(random, site, 3, signal.SIGKILL)
            case "stop":
                _strike(random, site, 2, signal.SIGSTOP)
            case _:
                _strike(random, site, 1, signal.SIGKILL)
                site.kill()
                site.start()
    return _judged("kills and stops in a storm", site, load, times)


def _strike(random: Random, site: Site, most: int, number: signal.Signals) -> None:
    """Send a signal to some of the host's children and grandchildren, zygotes included."""
    family = site.family()
    for each in random.sample(family, min(most, len(family))):
        each.send(number)


def _judged(fault: str, site: Site, load: Load, times: int) -> Result:
    account = load.finish()
    findings = settle(site, account)
    return result(
        fault, times, account, findings, repeated_publishes=load.repeated, **figures_of(site)
    )


def _chosen(random: Random, site: Site, pids: list[int]) -> Process | None:
    """One of the pids, if it is still a process of this node."""
    ours = {each.pid: each for each in site.family()}
    found = [ours[pid] for pid in pids if pid in ours]
    return random.choice(found) if found else None
