"""Kills and failpoints under the second load: queues, tables, schedules, parking and redrive."""

from __future__ import annotations

import signal
import time
from random import Random

from tests.integration.faults.failpoint_visits import DEATH_S, ELSEWHERE
from tests.integration.faults.results import Result
from tests.integration.faults.rounds import instances_of
from tests.integration.faults.sites import Site
from tests.integration.faults.works import Works

from headrace.environment.failpoints import LABELS

PASSES = {"feed": 12, "delay": 8, "lease": 25, "commit": 80, "append": 40, "pump": 60, "claim": 4}
HERE = tuple(label for label in LABELS if label.partition(":")[0] in PASSES)
"""What commits, appends and claims pass is visited too, but by the long campaign alone.

The places of the outbox are not: only a log that does not share the store's transaction passes
them, and a node on one data file has none.
"""
ONLY_HERE = tuple(label for label in HERE if label.partition(":")[0] in ELSEWHERE)


def kill_works(site: Site, times: int, seed: int) -> Result:
    """The host dies, or instances of its, while messages are leased and keys are redriven."""
    random = Random(seed)
    works = Works(site, seed)
    works.start()
    for number in range(times):
        time.sleep(random.uniform(0.1, 0.8))
        if number % 3 == 2:
            for each in instances_of(site):
                each.send(signal.SIGKILL)
        else:
            site.kill()
            site.start()
    return works.finish("kills amid queues, tables, schedules, redrives", times)


def visit_works(site: Site, times: int, seed: int) -> Result:
    """The host dies by itself at every place that feeds, delays and leases pass.

    More than once also where their commits, appends and claims pass.
    """
    random = Random(seed)
    works = Works(site, seed)
    works.start()
    site.kill()
    deaths = 0
    labels = HERE if times > 1 else ONLY_HERE
    for _ in range(times):
        for label in random.sample(labels, len(labels)):
            passes = random.randint(1, PASSES[label.partition(":")[0]])
            site.launch(failpoint=f"{label}:{passes}")
            site.wait_death(DEATH_S)
            deaths += 1
    site.start()
    return works.finish("kill at a failpoint of feeds, delays, leases", deaths, labels=len(labels))
