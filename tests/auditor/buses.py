"""Judges a bus by the streams of its rules, by what was sent to its address, and by its replays.

In: a scene's account. Out: findings.

B1 every event a rule means is given to its target once, and none it does not mean · B2 in order per
key · B3 a replay brings exactly what was appended between two times, once · B4 what was given is done:
published by the function, or answered by the address, or dead
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
from tests.auditor import rows
from tests.auditor.account import Finding, Log

Blobs = list[tuple[int, int, bytes]]


class Rule(msgspec.Struct):
    """A rule, and what it was given."""

    name: str
    label: str
    least: int
    below: int
    keys: list[str]
    given: Blobs
    done: Blobs | None
    is_posted: bool

    def means(self, number: int, key: str | None) -> bool:
        return self.least <= number < self.below and (not self.keys or key in self.keys)


class Bus(msgspec.Struct):
    """What was asked for and done; see `headrace.simulation.scenes.buses`."""

    published: list[int]
    replays: list[tuple[str, int, int, list[str], int]]
    rules: list[Rule]
    log: Blobs
    appended: list[int]
    posted: list[tuple[str, str, bytes]]
    answers: list[int]
    dead: list[tuple[bytes, bytes]]


class Event(msgspec.Struct, frozen=True):
    """What is told apart: its number, its key, and the replay that brought it ("" for none)."""

    number: int
    key: str | None
    replay: str


def check(scene: dict[str, Any], *, is_skewed: bool) -> list[Finding]:
    """Every broken promise of the bus."""
    bus = msgspec.convert(scene, Bus)
    log = Log(bus.log, bus.appended)
    there = Counter(held.number for held in log.held.values())
    findings = [
        Finding(
            "I1" if not there[number] else "I2", f"event {number} is there {there[number]} times"
        )
        for number in {*bus.published, *there}
        if there[number] != 1
    ]
    for rule in bus.rules:
        findings += _check_rule(bus, log, rule, is_skewed=is_skewed)
    return findings


def _check_rule(bus: Bus, log: Log, rule: Rule, *, is_skewed: bool) -> list[Finding]:
    findings: list[Finding] = []
    given = [event for _, event in _events(rule.given)]
    counts = Counter(given)
    wanted = {
        (at, Event(held.number, held.key, ""))
        for at, held in log.held.items()
        if rule.means(held.number, held.key)
    }
    for _, event in wanted:
        if counts[event] != 1:
            findings.append(Finding("B1", f"{rule.name} was given {event} {counts[event]} times"))
    strange = {event for event in given if not event.replay} - {event for _, event in wanted}
    if strange:
        findings.append(Finding("B1", f"{rule.name} was given {strange}, which it does not mean"))
    for name, begin, end, labels, asked in bus.replays:
        again = Counter(event.number for event in given if event.replay == name)
        chosen = not labels or rule.label in labels
        due = {
            event.number
            for at, event in wanted
            if chosen and begin <= log.appended[at] < min(end, asked + 1)
        }
        # What was appended after it was asked for may or may not have been there when it began.
        late = {event.number for at, event in wanted if chosen and log.appended[at] >= asked}
        odd = {
            n
            for n in {*again, *due}
            if again[n] != (n in due) and not (n in late and again[n] == 1)
        }
        if odd and not is_skewed:
            findings.append(
                Finding("B3", f"replay {name} brought {rule.name} {dict(again)}, not {sorted(due)}")
            )
    findings += _check_order(log, rule)
    return findings + _check_done(bus, rule, given)


def _check_order(log: Log, rule: Rule) -> list[Finding]:
    """Each key's events were given in the order in which the bus has them."""
    rank = {held.number: at for at, held in log.held.items()}
    last: dict[tuple[int, str | None, str], tuple[int, int]] = {}
    for partition, event in _events(rule.given):
        lane = partition, event.key, event.replay
        at = rank[event.number]
        if lane in last and at < last[lane]:
            return [Finding("B2", f"{rule.name} was given {event} after {last[lane]}")]
        last[lane] = at
    return []


def _check_done(bus: Bus, rule: Rule, given: list[Event]) -> list[Finding]:
    """Everything given has been taken, once; or is a dead letter."""
    function = f"_bus.http.{rule.name}" if rule.is_posted else rule.name
    dead = sum(rows.dead_place(key)[0].function == function for key, _ in bus.dead)
    if rule.done is not None:
        done = Counter(Event(value["n"], key, value["replay"]) for value, key in _values(rule.done))
        if done != Counter(given) and not dead:
            return [Finding("B4", f"{rule.name} was given {len(given)} events and did {done}")]
    if rule.is_posted:
        posted = {(opened["n"], again) for _, again, body in bus.posted for opened in [_json(body)]}
        never = {(event.number, event.replay) for event in given} - posted
        if never:
            return [Finding("B4", f"{rule.name} never sent {sorted(never)}")]
    return []


def _events(blobs: Blobs) -> list[tuple[int, Event]]:
    found: list[tuple[int, Event]] = []
    for partition, _, body in blobs:
        for value, key, headers in rows.with_headers(body):
            again = headers.get("headrace-replay", "")
            found.append((partition, Event(_json(value)["n"], key, again)))
    return found


def _values(blobs: Blobs) -> list[tuple[dict[str, Any], str | None]]:
    return [(_json(value), key) for _, _, body in blobs for value, key in rows.events(body)]


def _json(value: bytes) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(value)
    return found
