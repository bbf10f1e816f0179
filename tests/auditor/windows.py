"""Judges windows by the events that belong to them, what was told, and what was given up.

In: a scene's account. Out: findings. Windows are of a second, and which one an event is in is reckoned
here from its time.

W1 every window is told once, with its numbers in the order of the log, but for those that were late · W2
only a window whose close fails is given up, after as many attempts as were asked for, and is told once that
is mended · W3 a key's windows are told in order, but for those that were given up · W4 a number is late
once, if the events before it had ended its window, and else only if its partition was quiet before it for as
long as windows wait, or an operator closed windows
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
ROUNDED_US = 2
UNLUCKY = frozenset({"TimedOut", "Crashed", "headrace.Behind"})
"""Why an event may be given up though its handler never fails: its runs were cut off, as planned."""


class Windows(msgspec.Struct):
    """What was asked for and done; see `headrace.simulation.scenes.windows`."""

    function: str
    source: str
    began: int
    attempts: int
    fails: dict[str, int]
    published: list[int]
    log: Blobs
    appended: list[int]
    told: Blobs
    late: Blobs
    lateness: int
    idle: int
    flushed: list[str]
    given_up: list[tuple[bytes, bytes]]
    left: list[bytes]


def check(scene: dict[str, Any], *, is_skewed: bool) -> list[Finding]:
    """Every broken promise to the windows."""
    asked = msgspec.convert(scene, Windows)
    late = _late(asked)
    wanted = _wanted(asked, {number for number, _ in late})
    # The one that closes all others is never closed.
    found = [(name, numbers) for name, numbers in _told(asked.told) if -1 not in numbers]
    given_up, findings = _given_up(asked)
    there = {number for numbers in wanted.values() for number in numbers}
    there |= {number for number, _ in late}
    findings += [
        Finding("I1", f"{number} is not in {asked.source}")
        for number in asked.published
        if number not in there
    ]
    findings += [Finding("W2", f"{key!r} is left over") for key in asked.left]
    if _unlucky(asked):
        # What is redriven is folded after what came behind it.
        return findings
    findings += _judge_late(asked, late, is_skewed=is_skewed)
    times = Counter(name for name, _ in found)
    for name in sorted({*wanted, *times}):
        if times[name] != (name in wanted):
            findings.append(Finding("W1", f"{name} was told {times[name]} times"))
    for name, numbers in found:
        if name in wanted and numbers != wanted[name]:
            findings.append(Finding("W1", f"{name} was told with {numbers}, not {wanted[name]}"))
    return [*findings, *_out_of_order(found, given_up)]


def _late(asked: Windows) -> list[tuple[int, str | None]]:
    """The numbers that came too late, each with its key."""
    return [
        (msgspec.json.decode(value)["n"], key)
        for _, _, body in sorted(asked.late)
        for (value, _), (key, *_) in zip(rows.events(body), rows.looks(body), strict=True)
    ]


def _judge_late(
    asked: Windows, late: list[tuple[int, str | None]], *, is_skewed: bool
) -> Iterator[Finding]:
    """What is late must be, or may be: its window had ended by the events before it, or was closed."""
    times = Counter(number for number, _ in late)
    for number in sorted(number for number, count in times.items() if count > 1):
        yield Finding("W4", f"{number} was late {times[number]} times")
    partitions: dict[int, _Partition] = defaultdict(_Partition)
    for (place, _, body), at in sorted(zip(asked.log, asked.appended, strict=True)):
        partition = partitions[place]
        # The times of appends are the wall clock's, and silence is not.
        partition.wait(at, asked.idle if not is_skewed else min(asked.idle, 1))
        for (value, _), (key, time, *_) in zip(rows.events(body), rows.looks(body), strict=True):
            number = msgspec.json.decode(value)["n"]
            if number < 0 or time is None:
                continue
            end = time - time % SECOND + SECOND
            if end <= partition.latest - asked.lateness:
                if number not in times:
                    yield Finding("W4", f"{number} was not late, whose window was over before it")
            elif number in times and end > partition.closed(key, asked.flushed):
                yield Finding("W4", f"{number} was late, whose window nothing had closed before it")
            partition.add(key, time, end)


class _Partition:
    """What came before an event.

    Attributes:
        latest: The latest time of an event.
    """

    def __init__(self) -> None:
        self.latest = 0
        self._ends: dict[str | None, int] = {}
        self._quiet = 0
        self._at: int | None = None

    def wait(self, at: int, idle: int) -> None:
        """Something comes at this time: windows may have closed before it."""
        if idle and self._at is not None and at - self._at >= idle - ROUNDED_US:
            self._quiet = max(self._ends.values(), default=0)
        self._at = at

    def add(self, key: str | None, time: int, end: int) -> None:
        """It came."""
        self.latest = max(self.latest, time)
        self._ends[key] = max(self._ends.get(key, 0), end)

    def closed(self, key: str | None, flushed: list[str]) -> int:
        """The end of the last window of this key that silence may have closed, or an operator."""
        ends = [self._quiet]
        if "" in flushed:
            ends += self._ends.values()
        if key in flushed:
            ends.append(self._ends.get(key, 0))
        return max(ends)


def _wanted(asked: Windows, late: set[int]) -> dict[Name, list[int]]:
    found: dict[Name, list[int]] = defaultdict(list)
    for _, _, body in sorted(asked.log):
        for (value, _), (key, time, *_) in zip(rows.events(body), rows.looks(body), strict=True):
            number = msgspec.json.decode(value)["n"]
            if number >= 0 and time is not None and number not in late:
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
            if row.kind in UNLUCKY:
                continue
            findings.append(Finding("W2", f"the event {row.offset} failed, not its window"))
            continue
        name = _name_of(rows.events(row.event)[0][0], asked.began)
        if name is None:
            # A request to close windows, whose instance crashed.
            continue
        names.add(name)
        if row.kind != "CloseFailed":
            # It waits behind another one, or its instance crashed.
            continue
        if not asked.fails.get(name):
            findings.append(Finding("W2", f"{name} was given up, which can be told"))
        if row.attempts and row.attempts != asked.attempts:
            findings.append(Finding("W2", f"{name} was given up after {row.attempts} attempts"))
    return names, findings


def _unlucky(asked: Windows) -> bool:
    """Whether an event was given up, or waited behind one, since its runs were cut off."""
    return any(rows.given(value).where.stream == asked.source for _, value in asked.given_up)


def _name_of(value: bytes, began: int) -> Name | None:
    """The window's name; None where it is not a window."""
    window = msgspec.msgpack.decode(value)
    if not isinstance(window, dict):
        return None
    return f"{window['key']}/{round(window['start'].timestamp()) - began // SECOND}"


def _out_of_order(found: list[tuple[Name, list[int]]], given_up: set[Name]) -> Iterator[Finding]:
    last: dict[str, int] = {}
    for name, _ in found:
        key, _, start = name.rpartition("/")
        if name in given_up:
            continue
        if int(start) <= last.get(key, -1):
            yield Finding("W3", f"{name} was told after {last[key]}")
        last[key] = int(start)
