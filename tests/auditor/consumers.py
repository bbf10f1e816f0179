"""Judges a function that consumes by itself: by each move of its positions, and by what came of it.

In: a scene's account. Out: findings.

L1 every event leaves one output and one note in the state · L2 a position moves past exactly those
events whose outputs land with it · L3 each key's outputs are in order
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import msgspec
from tests.auditor import rows
from tests.auditor.account import Finding, held_of

Blobs = list[tuple[int, int, bytes]]


class Consumer(msgspec.Struct):
    """What was asked for and done; see `headrace.simulation.scenes.consumers`."""

    function: str
    stream: str
    published: list[int]
    moves: list[tuple[list[tuple[bytes, bytes]], list[tuple[int, bytes]]]]
    log: Blobs
    done: Blobs
    state: list[tuple[bytes, bytes]]


def check(scene: dict[str, Any], *, is_skewed: bool) -> list[Finding]:
    """Every broken promise to the consumer."""
    consumer = msgspec.convert(scene, Consumer)
    return _check_moves(consumer) + _check_end(consumer)


def _check_moves(consumer: Consumer) -> list[Finding]:
    findings: list[Finding] = []
    low: dict[int, int] = defaultdict(int)
    for puts, appends in consumer.moves:
        passed: set[str] = set()
        for key, value in puts:
            where = rows.place(key)
            if where.function != consumer.function:
                continue
            _, watermark, sparse = rows.position(value)
            before = low[where.partition]
            if watermark < before or sparse:
                findings.append(
                    Finding("L2", f"{where} went from {before} to {watermark}, {sparse}")
                )
            passed |= {f"{where.stream}/{where.partition}/{n}" for n in range(before, watermark)}
            low[where.partition] = watermark
        sources = [held_of(*event).source for _, body in appends for event in rows.events(body)]
        if Counter(sources) != Counter(passed):
            findings.append(
                Finding(
                    "L2", f"positions passed {sorted(passed)}, but outputs are of {sorted(sources)}"
                )
            )
    return findings


def _check_end(consumer: Consumer) -> list[Finding]:
    findings: list[Finding] = []
    there = [
        (f"{consumer.stream}/{partition}/{first + step}", held_of(value, key))
        for partition, first, body in consumer.log
        for step, (value, key) in enumerate(rows.events(body))
    ]
    numbers = Counter(held.number for _, held in there)
    for number in {*consumer.published, *numbers}:
        if numbers[number] != 1:
            invariant = "I2" if numbers[number] else "I1"
            findings.append(Finding(invariant, f"event {number} is there {numbers[number]} times"))
    done = [
        held_of(value, key)
        for _, _, body in sorted(consumer.done)
        for value, key in rows.events(body)
    ]
    times = Counter(held.source for held in done)
    for at, _ in there:
        if times[at] != 1:
            findings.append(Finding("L1", f"{at} has {times[at]} outputs"))
    notes = {
        name.partition("|")[2]: len(kept)  # type: ignore[arg-type]  # a list of notes
        for _, name, kept in (rows.state(*row) for row in consumer.state)
        if name.startswith(f"{consumer.function}|")
    }
    if notes != Counter(str(held.key) for _, held in there):
        findings.append(Finding("L1", f"the state has seen {notes}"))
    offsets = {held.number: int(at.rpartition("/")[2]) for at, held in there}
    last: dict[str | None, int] = {}
    for held in done:
        if offsets[held.number] < last.get(held.key, -1):
            findings.append(Finding("L3", f"{held.source} came after {last[held.key]} of its key"))
        last[held.key] = offsets[held.number]
    return findings
