"""Creation of a function's intake: lanes for order per key or none, otherwise batches or a merge."""

from __future__ import annotations

from headrace.delivery.flow.debounce_waits import DebounceWaits
from headrace.delivery.intake.base import Intake
from headrace.delivery.intake.batcher import Batcher
from headrace.delivery.intake.lanes import LaneRules, Lanes
from headrace.delivery.intake.merge.merge import Merge
from headrace.delivery.intake.merge.order_store import MergeOrderStore
from headrace.model.function import FunctionSpec

MIN_LOOK_AHEAD, MAX_LOOK_AHEAD = 1_000, 10_000


def open_lanes(spec: FunctionSpec, *, width: int, rules: LaneRules, waits: DebounceWaits) -> Intake:
    """Return empty lanes, for a function of which `width` units run at once."""
    events = spec.batch_size
    # Four times what runs at once, so that closed lanes leave enough open ones; bounded, as all of
    # it is in memory.
    capacity = min(max(events * width * 4, MIN_LOOK_AHEAD), MAX_LOOK_AHEAD)
    return Lanes(
        events=events,
        size=spec.batch_bytes,
        window=spec.batch_window,
        capacity=capacity,
        rules=rules,
        waits=waits,
    )


def open_in_order(
    spec: FunctionSpec, *, streams: int, lateness: float, merges: MergeOrderStore | None
) -> Intake:
    """Return an empty intake that keeps the order of the log, or merges several logs.

    Args:
        spec: The function.
        streams: How many are read together.
        lateness: Seconds for which a merge waits for a stream without events.
        merges: Stores the order of the merge; None if there is one stream.
    """
    events, size, window = spec.batch_size, spec.batch_bytes, spec.batch_window
    if merges is None:
        return Batcher(events=events, size=size, window=window)
    merge = Merge(streams, events=events, size=size, window=window, lateness=lateness)
    merges.follow(merge)
    return merge
