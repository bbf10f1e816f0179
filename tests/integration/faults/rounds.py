"""The frame of a round: a node put to work under load, and the judgement when its faults are over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import Any

from tests.auditor.outside import Finding
from tests.integration.faults.load import APP, Load
from tests.integration.faults.processes import Process, wait_until, zygotes
from tests.integration.faults.results import Result, figures_of, result, settle
from tests.integration.faults.sites import Site


def at_work(site: Site, seed: int, *, app: str = APP, **load: float) -> Load:
    """The app's node, started and under load."""
    site.write(app)
    site.start()
    return Load(site, seed, **load)  # type: ignore[arg-type]  # `padding` is a whole number


def judged(
    fault: str, load: Load, times: int, *, findings: Sequence[Finding] = (), **figures: Any
) -> Result:
    """Stop the producers, let the node come to rest, and judge what it made of their events."""
    site = load.site
    account = load.finish()
    found = [*findings, *settle(site, account)]
    return result(fault, times, account, found, **figures, **figures_of(site))


def instances_of(site: Site, state: str = "") -> list[Process]:
    """The processes of the instances that the node lists, those in one state where it is named."""
    ours = {each.pid: each for each in site.family()}
    return [
        ours[each["pid"]]
        for each in site.instances()
        if each["pid"] in ours and state in {"", each["state"]}
    ]


def zygote_of(site: Site) -> Process:
    """The process that forks the instances, once there are some."""
    wait_until(site.instances, seconds=20, what=lambda: f"instances run {site.said()}")
    return zygotes(site.host.pid)[0]


def pauses(random: Random, times: int, least: float, most: float) -> Iterator[float]:
    """So many seconds to wait before each of `times` faults."""
    for _ in range(times):
        yield random.uniform(least, most)
