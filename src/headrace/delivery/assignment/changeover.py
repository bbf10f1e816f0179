"""From one version of a function to the next: what becomes of each of its readings; pure.

In: what is deployed of a function, and what is to be. Out: a `Step` for each group of streams that either
of them reads. What is not known to have changed in a way that delivery sees is left alone: its partition workers go on,
and only the code behind them is another.
"""

from __future__ import annotations

import enum
from typing import TypeAlias

from msgspec.structs import replace

from headrace.model.function import FunctionSpec
from headrace.model.triggers.base import Trigger, listeners
from headrace.model.triggers.files import Custom
from headrace.model.triggers.lag import Lag

Streams: TypeAlias = tuple[str, ...]
"""Streams that are read together."""


class Step(enum.Enum):
    """What becomes of one reading."""

    KEEP = "keep"
    """Nothing: its partition workers, positions and runs go on."""
    RENEW = "renew"
    """Each partition goes on by the new description once its run in hand has landed."""
    REPLACE = "replace"
    """It ends, what runs is recalled, and another one takes its place."""
    OPEN = "open"
    CLOSE = "close"


def steps(old: FunctionSpec | None, new: FunctionSpec | None) -> dict[Streams, Step]:
    """What becomes of each reading of a function; None is one that is not deployed."""
    before, after = _readings(old), _readings(new)
    found: dict[Streams, Step] = {}
    for streams in (*before, *(each for each in after if each not in before)):
        if old is None or streams not in before:
            found[streams] = Step.OPEN
        elif new is None or streams not in after:
            found[streams] = Step.CLOSE
        else:
            found[streams] = _step(old, before[streams], new, after[streams])
    return found


def _step(old: FunctionSpec, before: Trigger, new: FunctionSpec, after: Trigger) -> Step:
    # The author's own code runs for long here, or is its source: the old goes on until it is ended.
    runs_on = isinstance(after, (Lag, Custom)) and old.version != new.version
    if before == after and _delivered(old) == _delivered(new) and not runs_on:
        return Step.KEEP
    return Step.REPLACE if Lag in {type(before), type(after)} else Step.RENEW


def _readings(function: FunctionSpec | None) -> dict[Streams, Trigger]:
    if function is None:
        return {}
    return {reads.streams: each for each, reads in listeners(function.name, function.triggers)}


def _delivered(function: FunctionSpec) -> FunctionSpec:
    """The function as partition workers see it: without what says which code runs, and how else it is set off."""
    triggers = function.triggers if function.change_streams else ()
    return replace(function, version="", source="", summary="", triggers=triggers)
