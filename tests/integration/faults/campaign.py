"""Which faults there are, how often a push and the long campaign make each, and running them.

A fault is made in rounds, each on a fresh site and from a seed of its own, so that no data folder
grows without end and a round that fails can be made again alone.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from tests.integration.faults.backlog import keep_backlog
from tests.integration.faults.bad_disks import break_disks, refuse
from tests.integration.faults.clocks import jump_clocks, why_no_jumps
from tests.integration.faults.disks import why_no_mounts
from tests.integration.faults.failpoint_visits import visit
from tests.integration.faults.flips import flip_bits
from tests.integration.faults.floods import flood
from tests.integration.faults.full_disks import fill_disk
from tests.integration.faults.hostility import attack
from tests.integration.faults.kills import kill_hosts, kill_instances, kill_zygotes, storm
from tests.integration.faults.neighbours import neighbours
from tests.integration.faults.pauses import (
    kill_host_of_stopped,
    pause_hosts,
    pause_instances,
    pause_zygotes,
)
from tests.integration.faults.poison import poison
from tests.integration.faults.power_cuts import cut_power
from tests.integration.faults.results import Result, Run
from tests.integration.faults.sites import site
from tests.integration.faults.webhooks import hostile_webhooks
from tests.integration.faults.works_faults import kill_works, visit_works


class Fault(NamedTuple):
    """A kind of fault.

    `smoke` and `long` say how often it is made, `round` how often on one site; `disk` names the file
    system it needs to mount, `why_not` says what else this machine lacks.
    """

    name: str
    run: Run
    smoke: int
    long: int
    round: int
    disk: str = ""
    why_not: Callable[[], str] = str


FAULTS = (
    Fault("kill-host", kill_hosts, 5, 1_000, 20),
    Fault("kill-instance", kill_instances, 10, 5_000, 100),
    Fault("kill-zygote", kill_zygotes, 5, 1_000, 10),
    Fault("storm", storm, 10, 1_000, 25),
    Fault("failpoints", visit, 1, 3, 1),
    Fault("works-kill", kill_works, 6, 500, 25),
    Fault("works-failpoints", visit_works, 1, 3, 3),
    Fault("clock-jumps", jump_clocks, 4, 200, 12, why_not=why_no_jumps),
    Fault("stop-instance", pause_instances, 3, 500, 20),
    Fault("stop-host", pause_hosts, 2, 500, 20),
    Fault("stop-zygote", pause_zygotes, 1, 50, 5),
    Fault("kill-host-of-stopped", kill_host_of_stopped, 2, 100, 20),
    Fault("power-ext4", partial(cut_power, kind="ext4"), 3, 100, 10, "ext4"),
    Fault("power-xfs", partial(cut_power, kind="xfs"), 3, 100, 10, "xfs"),
    Fault("disk-full", fill_disk, 2, 100, 5, "ext4"),
    Fault("disk-broken", break_disks, 6, 1_000, 30),
    Fault("store-away", refuse, 2, 100, 10),
    Fault("flips", flip_bits, 50, 1_000, 250),
    Fault("hostile", attack, 1, 9, 1),
    Fault("poison", poison, 1, 20, 2),
    Fault("webhooks", hostile_webhooks, 1, 20, 5),
    Fault("neighbour", neighbours, 1, 10, 2),
    Fault("backlog", keep_backlog, 2, 50, 5),
    Fault("flood", flood, 1, 20, 20),
)


def rounds(fault: Fault, times: int, seed: int) -> Iterator[Result]:
    """Make a fault so many times, round by round; a round that breaks is a finding, not an end."""
    why = fault.why_not()
    if fault.disk:
        with TemporaryDirectory() as folder:
            why = why_no_mounts(fault.disk, Path(folder))
    if why:
        print(f"{fault.name}: skipped, {why}", file=sys.stderr)  # noqa: T201 - a command line
        return
    number = 0
    while times > 0:
        share = min(times, fault.round)
        yield one_round(fault, share, seed + number)
        times -= share
        number += 1


def one_round(fault: Fault, times: int, seed: int) -> Result:
    """One site, from opening to judgement."""
    try:
        with site() as place:
            found = fault.run(place, times, seed)
    except Exception:  # noqa: BLE001 - whatever it is, it is a finding of this round
        found = Result(fault=fault.name, times=times, findings=[traceback.format_exc()])
    if found.findings:
        again = f"--only {fault.name} --times {times} --seed {seed}"
        found.findings.append(f"make it again with `python -m tests.integration.faults {again}`")
    return found


def total(name: str, results: list[Result]) -> dict[str, Any]:
    """The rounds of one fault as one row: counts added, times at their slowest."""
    figures: dict[str, Any] = {}
    for found in results:
        for figure, value in found.figures.items():
            if figure.startswith(("slowest", "worst", "calls")):
                figures[figure] = max(value, figures.get(figure, 0))
    failed = [found for found in results if found.findings]
    titles = [found.fault for found in results if found.fault != name]
    return {
        "name": name,
        "fault": titles[0] if titles else name,
        "times": sum(found.times for found in results),
        "events": sum(found.events for found in results),
        "rounds": len(results),
        "rounds_failed": len(failed),
        "findings": [text for found in failed for text in found.findings],
        "figures": figures,
    }
