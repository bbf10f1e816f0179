"""A trigger -> the source that serves it; drivers are loaded only when one is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from headrace.model.errors import Misuse
from headrace.model.function import FunctionSpec
from headrace.model.trigger import Trigger
from headrace.triggers.source import Source
from headrace.world.clock import Clock
from headrace.world.entropy import Entropy


@dataclass(frozen=True)
class Surroundings:
    """What every source may use of the node."""

    clock: Clock
    entropy: Entropy
    folder: Path | None = None


def open_source(function: FunctionSpec, trigger: Trigger, around: Surroundings) -> Source:
    """The source of `trigger`, not running yet.

    Raises:
        Misuse: The trigger cannot work as configured, or a library it needs is not installed.
    """
    del around
    kind = trigger.__struct_config__.tag
    raise Misuse(f"`{function.name}`: no source serves a `{kind}` trigger on this node")
