"""Judges a desk that is asked over HTTP: by what it answered, and by what it did.

In: a scene's account. Out: findings.

D1 what was answered well is done, once · D2 a request that is repeated gets the first one's answer ·
D3 what was refused is not done, and what was not answered at most once · D4 a key is good for one
request · D5 every count follows from the one before
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import msgspec
from tests.auditor import rows
from tests.auditor.account import Finding

OTHER = 1_000
WELL = {200, 202}
REFUSED = {409, 422}


class Told(msgspec.Struct):
    """What the desk said of one order."""

    n: int
    count: int


class Request(msgspec.Struct):
    """What was asked; see `headrace.simulation.scenes.http`."""

    number: int
    place: str
    is_keyed: bool


class Desk(msgspec.Struct):
    """What was asked and answered, and what is there."""

    requests: list[Request]
    answers: list[tuple[int, bool, int, Any]]
    told: list[tuple[int, int, bytes]]


def check(scene: dict[str, Any], *, is_skewed: bool) -> list[Finding]:
    """Every broken promise of the desk."""
    desk = msgspec.convert(scene, Desk)
    told = [
        (key, msgspec.json.decode(value, type=Told))
        for _, _, body in sorted(desk.told)
        for value, key in rows.events(body)
    ]
    done = Counter(order.n for _, order in told)
    return [
        *_check_answers(desk, done),
        *_check_counts(told),
    ]


def _check_answers(desk: Desk, done: Counter[int]) -> list[Finding]:
    findings: list[Finding] = []
    statuses: dict[tuple[int, bool], set[int]] = defaultdict(set)
    bodies: dict[tuple[int, bool], set[str]] = defaultdict(set)
    for number, is_other, status, body in desk.answers:
        statuses[number, is_other].add(status)
        if status == 200:
            bodies[number, is_other].add(repr(body))
    keyed = {request.number for request in desk.requests if request.is_keyed}
    for (number, is_other), seen in statuses.items():
        times = done[number + OTHER * is_other]
        what = f"request {number}{' (another one)' if is_other else ''}"
        if seen & WELL and times != 1:
            findings.append(Finding("D1", f"{what} was answered {seen} and is done {times} times"))
        if not seen & WELL and times > (0 if seen <= REFUSED else 1):
            findings.append(Finding("D3", f"{what} was answered {seen}, but done {times} times"))
        if seen - WELL - REFUSED and number in keyed:
            findings.append(Finding("D1", f"{what} was asked until {seen} came of it"))
        if len(bodies[number, is_other]) > 1:
            findings.append(
                Finding("D2", f"{what} was answered {sorted(bodies[number, is_other])}")
            )
    for number in keyed:
        if done[number] and done[number + OTHER]:
            findings.append(Finding("D4", f"both requests with the key of {number} are done"))
    return findings


def _check_counts(told: list[tuple[str | None, Told]]) -> list[Finding]:
    counts: dict[str | None, list[int]] = defaultdict(list)
    for key, order in told:
        counts[key].append(order.count)
    return [
        Finding("D5", f"{key} was counted {seen}")
        for key, seen in counts.items()
        if seen != list(range(1, len(seen) + 1))
    ]
