"""Judges windows by the events that belong to them, what was told, and what was given up.

In: a scene's account. Out: findings. Windows are of a second, and which one an event is in is reckoned
here from its time.

W1 every window is told once, with its numbers in the order of the log · W2 only a window whose close
fails is given up, after as many attempts as were asked for, and is told once that is mended · W3 a key's
windows are told in order, but for those that were given up
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import msgspec
from tests.auditor import rows
from tests.auditor.account import Finding

Blobs = list[tuple[int, int, bytes]]
Name = str
"""A window, as `KEY/SECOND`."""

SECOND = 1_000_000


class Windows(msgspec.Struct):
    """What was asked for and done; see `headrace.simulation.scenes.windows`."""

    function: str
    source: str
    began: int
    attempts: int
    fails: dict[str, int]
    published: list[int]
    log: Blobs
    told: Blobs
    given_up: list[tuple[bytes, bytes]]
    left: list[bytes]


def check(scene: dict[str, Any], *, is_skewed: bool) -> list[Finding]:
    """Every broken promise to the windows."""
    asked = msgspec.convert(scene, Windows)
    wanted = _wanted(asked)
    # The one that closes all others is never closed.
    found = [(name, numbers) for name, numbers in _told(asked.told) if -1 not in numbers]
    given_up, findings = _given_up(asked)
    there = {number for numbers in wanted.values() for number in numbers}
    findings += [
        Finding("I1", f"{number} is not in {asked.source}")
        for number in asked.published
        if number not in there
    ]
    times = Counter(name for name, _ in found)
    for name in sorted({*wanted, *times}):
        if times[name] != (name in wanted):
            findings.append(Finding("W1", f"{name} was told {times[name]} times"))
    for name, numbers in found:
        if name in wanted and numbers != wanted[name]:
            findings.append(Finding("W1", f"{name} was told with {numbers}, not {wanted[name]}"))
    findings += [Finding("W2", f"{key!r} is left over") for key in asked.left]
    return [*findings, *_out_of_order(found, given_up)]


def _wanted(asked: Windows) -> dict[Name, list[int]]:
    found: dict[Name, list[int]] = defaultdict(list)
    for _, _, body in sorted(asked.log):
        for (value, _), (key, time, *_) in zip(rows.events(body), rows.looks(body), strict=True):
            number = msgspec.json.decode(value)["n"]
            if number >= 0 and time is not None:
                found[f"{key}/{(time - asked.began) // SECOND}"].append(number)
    return found


def _told(blobs: Blobs) -> list[tuple[Name, list[int]]]:
    values = [msgspec.json.decode(v) for _, _, body in sorted(blobs) for v, _ in rows.events(body)]
    return [(value["window"], value["numbers"]) for value in values]


def _given_up(asked: Windows) -> tuple[set[Name], list[Finding]]:
    """Which windows were given up, or waited behind one that was; and what is wrong with that."""
    names, findings = set[Name](), list[Finding]()
    for _, value in asked.given_up:
        row = rows.given(value)
        if row.where.stream == asked.source:
            findings.append(Finding("W2", f"the event {row.offset} failed, not its window"))
            continue
        name = _name_of(rows.events(row.event)[0][0], asked.began)
        names.add(name)
        if row.kind != "Untold":
            # It waits behind another one, or its instance crashed.
            continue
        if not asked.fails.get(name):
            findings.append(Finding("W2", f"{name} was given up, which can be told"))
        if row.attempts and row.attempts != asked.attempts:
            findings.append(Finding("W2", f"{name} was given up after {row.attempts} attempts"))
    return names, findings


def _name_of(value: bytes, began: int) -> Name:
    window = msgspec.msgpack.decode(value)
    key, start = (window["key"], window["start"]) if isinstance(window, dict) else window[:2]
    return f"{key}/{round(start.timestamp()) - began // SECOND}"


def _out_of_order(found: list[tuple[Name, list[int]]], given_up: set[Name]) -> Iterator[Finding]:
    last: dict[str, int] = {}
    for name, _ in found:
        key, _, start = name.rpartition("/")
        if name in given_up:
            continue
        if int(start) <= last.get(key, -1):
            yield Finding("W3", f"{name} was told after {last[key]}")
        last[key] = int(start)
