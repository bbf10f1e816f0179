"""kill -9 of the host, of instances and of zygotes, at random moments under load."""

from __future__ import annotations

import signal
import time
from random import Random

from tests.integration.faults.processes import wait_until
from tests.integration.faults.results import Result
from tests.integration.faults.rounds import at_work, instances_of, judged, pauses, zygote_of
from tests.integration.faults.sites import Site


def kill_hosts(site: Site, times: int, seed: int) -> Result:
    """The whole node dies and is started again, over and over."""
    load = at_work(site, seed)
    for pause in pauses(Random(seed), times, 0.05, 0.8):
        time.sleep(pause)
        site.kill()
        site.start()
    return judged("kill -9 of the host", load, times, repeated_publishes=load.repeated)


def kill_instances(site: Site, times: int, seed: int) -> Result:
    """Single instances die, the busy ones first; each run goes back and is run again."""
    random = Random(seed)
    load = at_work(site, seed)
    done = 0
    while done < times:
        time.sleep(random.uniform(0.02, 0.25))
        victims = instances_of(site, "busy") or instances_of(site)
        done += bool(victims) and random.choice(victims).send(signal.SIGKILL)
    return judged("kill -9 of an instance", load, times)


def kill_zygotes(site: Site, times: int, seed: int) -> Result:
    """The process that forks the instances dies, and takes them with it."""
    load = at_work(site, seed)
    for pause in pauses(Random(seed), times, 0.05, 0.6):
        time.sleep(pause)
        victim = zygote_of(site)
        family = site.family()
        assert victim.send(signal.SIGKILL)
        wait_until(
            lambda old=family: not any(each.is_alive() for each in old),  # type: ignore[misc]
            seconds=10,
            what=lambda: f"I7: a dead zygote's instances end {site.said()}",
        )
    return judged("kill -9 of a zygote", load, times)


def storm(site: Site, times: int, seed: int) -> Result:
    """Host, zygote and instances die and stop, in any order and at once."""
    random = Random(seed)
    load = at_work(site, seed)
    for pause in pauses(random, times, 0.02, 0.3):
        time.sleep(pause)
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
    return judged("kills and stops in a storm", load, times, repeated_publishes=load.repeated)


def _strike(random: Random, site: Site, most: int, number: signal.Signals) -> None:
    """Send a signal to some of the host's children and grandchildren, zygotes included."""
    family = site.family()
    for each in random.sample(family, min(most, len(family))):
        each.send(number)
