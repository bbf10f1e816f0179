"""Change from one version of a function to the next: a step for each of its subscriptions. Pure.

In: the deployed version of a function, and the next one. Out: a `Step` for each group of streams that either of them
reads. A subscription without a change that delivery sees keeps its partition workers; only the code behind them
changes.
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
    """Change of one subscription."""

    KEEP = "keep"
    """No change: its partition workers, positions and runs continue."""
    RENEW = "renew"
    """Each partition continues with the new description after its run in flight has been committed."""
    REPLACE = "replace"
    """It ends, its runs are recalled, and a new subscription replaces it."""
    OPEN = "open"
    CLOSE = "close"


def steps(old: FunctionSpec | None, new: FunctionSpec | None) -> dict[Streams, Step]:
    """Return the step of each subscription of a function; None stands for a function that is not deployed."""
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
    # A consumer run or a custom source is long-lived code of the old version: it must be ended, or
    # it would run on.
    runs_on = isinstance(after, (Lag, Custom)) and old.version != new.version
    if before == after and _delivered(old) == _delivered(new) and not runs_on:
        return Step.KEEP
    return Step.REPLACE if Lag in {type(before), type(after)} else Step.RENEW


def _readings(function: FunctionSpec | None) -> dict[Streams, Trigger]:
    if function is None:
        return {}
    return {reads.streams: each for each, reads in listeners(function.name, function.triggers)}


def _delivered(function: FunctionSpec) -> FunctionSpec:
    """Return the function as partition workers see it: without its version, source and other triggers."""
    # Options of a row change trigger decide on keys and filters, so there a changed trigger
    # changes delivery.
    triggers = function.triggers if function.change_streams else ()
    return replace(function, version="", source="", summary="", triggers=triggers)
