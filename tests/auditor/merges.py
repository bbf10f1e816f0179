"""Judges a merge that was sent back: by what it published the first time, and what after.

In: a scene's account. Out: findings.

M1 the first run hands over each event once, and each stream in its own order · M2 a further run
takes the order of the first from its beginning, and the last one comes to its end
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import msgspec
from tests.auditor import rows
from tests.auditor.account import Finding, held_of

Blobs = list[tuple[int, int, bytes]]


class Merging(msgspec.Struct):
    """What was done; see `headrace.simulation.scenes.merges`."""

    published: list[int]
    logs: dict[str, Blobs]
    merged: Blobs


def check(scene: dict[str, Any], *, is_skewed: bool) -> list[Finding]:
    """Every broken promise to the merge."""
    merging = msgspec.convert(scene, Merging)
    there: dict[int, list[str]] = defaultdict(list)
    numbers: Counter[int] = Counter()
    for stream, blobs in merging.logs.items():
        for partition, first, body in blobs:
            for step, (value, key) in enumerate(rows.events(body)):
                there[partition].append(f"{stream}/{partition}/{first + step}")
                numbers[held_of(value, key).number] += 1
    findings = [
        Finding("I2" if numbers[number] else "I1", f"{number} is there {numbers[number]} times")
        for number in {*merging.published, *numbers}
        if numbers[number] != 1
    ]
    told: dict[int, list[str]] = defaultdict(list)
    for partition, _, body in sorted(merging.merged):
        told[partition] += (held_of(value, key).source for value, key in rows.events(body))
    for partition in {*there, *told}:
        findings += _check_first(there[partition], told[partition][: len(there[partition])])
        findings += _check_again(told[partition], len(there[partition]))
    return findings


def _check_first(there: list[str], first: list[str]) -> list[Finding]:
    if Counter(first) != Counter(there):
        return [Finding("M1", f"of {sorted(there)} the first run handed over {first}")]
    last: dict[str, int] = {}
    for source in first:
        stream, _, offset = source.rpartition("/")
        if int(offset) < last.get(stream, -1):
            return [Finding("M1", f"{source} came after {last[stream]}")]
        last[stream] = int(offset)
    return []


def _check_again(told: list[str], size: int) -> list[Finding]:
    """A host that dies while it is asked leaves nobody knowing, so it may be sent back twice."""
    first, at = told[:size], 0
    for source in told[size:]:
        if at < size and source == first[at]:
            at += 1
        elif source == first[0]:
            at = 1
        else:
            return [Finding("M2", f"{source} came where {first[at : at + 1]} came the first time")]
    if at != size:
        return [Finding("M2", f"the last run ended after {at} of {size} events")]
    return []
