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

from headrace.world.failpoints import LABELS

PASSES = {"feed": 12, "delay": 8, "lease": 25}
HERE = tuple(label for label in LABELS if label.partition(":")[0] in ELSEWHERE)


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
    """The host dies by itself at every place that feeds, delays and leases pass."""
    random = Random(seed)
    works = Works(site, seed)
    works.start()
    site.kill()
    for _ in range(times):
        for label in random.sample(HERE, len(HERE)):
            passes = random.randint(1, PASSES[label.partition(":")[0]])
            site.launch(failpoint=f"{label}:{passes}")
            site.wait_death(DEATH_S)
    site.start()
    return works.finish(
        "kill at a failpoint of feeds, delays, leases", times * len(HERE), labels=len(HERE)
    )
