"""What stands between the readers and the next unit: batches, lanes or a merge, as the function asks.

In: a function's description. Out: the one of the three that a partition worker feeds with what it reads and
takes units from. They share three questions: `wanting` (which readers to ask), `wait` (when a batch
closes) and `take`.
"""

from __future__ import annotations

from typing import TypeAlias

from headrace.delivery.flow.debounce_waits import DebounceWaits
from headrace.delivery.intake.batcher import Batcher
from headrace.delivery.intake.lanes import LaneRules, Lanes
from headrace.delivery.intake.merge.merge import Merge
from headrace.model.function import FunctionSpec

Intake: TypeAlias = Batcher | Lanes | Merge

MIN_LOOK_AHEAD, MAX_LOOK_AHEAD = 1_000, 10_000


def intake_of(
    spec: FunctionSpec,
    *,
    streams: int,
    lanes: bool,
    width: int,
    rules: LaneRules,
    lateness: float,
    waits: DebounceWaits | None = None,
) -> Intake:
    """The intake of a partition worker that runs `width` units at once."""
    events, size, window = spec.batch_size, spec.batch_bytes, spec.batch_window
    if lanes:
        room = min(max(events * width * 4, MIN_LOOK_AHEAD), MAX_LOOK_AHEAD)
        return Lanes(events=events, size=size, window=window, room=room, rules=rules, waits=waits)
    if streams == 1:
        return Batcher(events=events, size=size, window=window)
    return Merge(streams, events=events, size=size, window=window, lateness=lateness)
