"""What a run found: how often a fault was made, which promises broke, and what was measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from tests.auditor.outside import Account, Finding, check_file, judge
from tests.integration.faults.processes import descriptors, wait_until, zombies
from tests.integration.faults.sites import Site, site

RESTART_S = 5.0
RESTART_RATIO = 2.0
"""A restart that took longer is judged beside a start that nothing has disturbed: a machine may be slow."""
SPARE_DESCRIPTORS = 24


class Result(msgspec.Struct, kw_only=True):
    """One run of one fault.

    Attributes:
        fault: What was done.
        times: How often.
        events: Acknowledged events that were judged.
        findings: Broken promises; none is what is wanted.
        figures: What was measured on the way.
    """

    fault: str
    times: int
    events: int = 0
    findings: list[str] = []
    figures: dict[str, Any] = {}


def settle(place: Site, account: Account) -> list[Finding]:
    """Let the node come to rest, judge it, end it, and judge what it leaves (I1-I5, I7-I9)."""
    place.wait_drained()
    return [*judge(account, place.ask), *leave(place)]


def leave(place: Site, *, spare: int = SPARE_DESCRIPTORS) -> list[Finding]:
    """End the node and judge what it leaves (I7, I8); one at work holds more than an idle one."""
    findings: list[Finding] = []
    host = place.host
    if dead := zombies(host.pid):
        try:
            wait_until(lambda: not any(each.state() == "Z" for each in dead), seconds=3, what="")
        except AssertionError:
            findings.append(Finding("I7", f"the host does not reap {dead}"))
    bound = spare + 6 * (len(place.instances()) + 1)
    if (opened := descriptors(host.pid)) > bound:
        findings.append(Finding("I7", f"the host has {opened} descriptors, over {bound}"))
    place.hang_up()
    place.stop()
    left = list((place.data / "scratch").rglob("*")) if (place.data / "scratch").exists() else []
    if left:
        findings.append(Finding("I7", f"scratch folders are left: {left[:5]}"))
    findings += check_file(place.data / "headrace.db")
    slow = [seconds for seconds in place.restarts if seconds > RESTART_S]
    if slow and max(slow) > RESTART_RATIO * (fresh := fresh_start(place)):
        findings.append(Finding("I8", f"starts took {slow} s, a new node's {fresh:.1f} s"))
    return findings


def fresh_start(of: Site) -> float:
    """The seconds that a node with the same app and nothing to recover takes to start here and now."""
    with site() as fresh:
        fresh.write((of.folder / "app.py").read_text())
        seconds = fresh.start()
        fresh.stop()
        return seconds


def figures_of(place: Site) -> dict[str, float]:
    """How long starts and the end of orphans took."""
    found = {"slowest_start_s": max(place.restarts, default=0.0)}
    if place.orphan_seconds:
        found["slowest_orphan_s"] = max(place.orphan_seconds)
    return {name: round(value, 3) for name, value in found.items()}


def result(
    fault: str, times: int, account: Account, findings: Sequence[Finding], **figures: Any
) -> Result:
    """A result of a judged run."""
    return Result(
        fault=fault,
        times=times,
        events=sum(len(sent) for sent in account.acknowledged.values()),
        findings=[str(finding) for finding in findings],
        figures=figures,
    )


Run = Callable[[Site, int, int], Result]
"""How every fault is made: on a fresh site, so many times, from a seed."""
