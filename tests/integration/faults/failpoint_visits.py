"""The host dies by itself at a named place, for every place there is, in recovery too.

One data folder lives through all of it: a node armed with a failpoint runs under load until it dies
there, the next life is armed with the next one. What recovery passes is visited twice in a row
before the node may come up whole. What only foreign sources and queues pass is not visited here.
"""

from __future__ import annotations

import time
from random import Random

from tests.integration.faults.results import Result
from tests.integration.faults.rounds import at_work, judged
from tests.integration.faults.sites import Site

from headrace.environment.failpoints import LABELS

DEATH_S = 30.0
AT_START = frozenset(
    {"recovery:opened", "recovery:claimed", "claim:before-write", "claim:after-write"}
)
"""Passed while a node comes up: it dies before anybody can ask it."""

PASSES = {
    "append": 40,
    "commit": 80,
    "pump": 60,
    "dead-letter": 2,
    "fork": 2,
    "checkpoint": 1,
    "claim": 4,
    "recovery": 1,
}
"""From which pass to which (1 to so many) a node may be killed, by the first word of the label."""

ELSEWHERE = frozenset({"feed", "delay", "lease", "outbox"})
"""Passed only by foreign sources, by queues and by logs with a disk of their own, which the load has none of."""
HERE = tuple(label for label in LABELS if label.partition(":")[0] not in ELSEWHERE)


def visit(site: Site, times: int, seed: int) -> Result:
    """Die `times` times at every label, each at another pass."""
    random = Random(seed)
    load = at_work(site, seed, pause=0.01, poison=0.01, padding=8_000)
    deaths: dict[str, int] = dict.fromkeys(HERE, 0)
    site.kill()
    for _ in range(times):
        for label in random.sample(HERE, len(HERE)):
            passes = random.randint(1, PASSES[label.partition(":")[0]])
            for _ in range(2 if label in AT_START else 1):
                site.launch(failpoint=f"{label}:{passes}")
                site.wait_death(DEATH_S)
                deaths[label] += 1
    site.start()
    time.sleep(0.2)
    return judged("kill at a failpoint", load, sum(deaths.values()), labels=len(deaths))
