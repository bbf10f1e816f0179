"""Events per second of a function, from the remembered runs. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from headrace.telemetry.history import MAX_RUNS, RunRecord

WINDOW_S: Final = 10.0
LEAST_S: Final = 1.0


def rates(known: Sequence[RunRecord], now: int) -> dict[str, float]:
    """Events a second into one function, by the stream they came from, over the last ten seconds.

    Where what is remembered does not reach back that far, the time it does reach back is what the
    events are divided by.

    Args:
        known: What is remembered of its runs, newest first.
        now: In microseconds since the epoch.
    """
    events: dict[str, int] = {}
    for run in known:
        if now - run.started > WINDOW_S * 1e6:
            break
        stream = run.first.rsplit("/", 2)[0]
        events[stream] = events.get(stream, 0) + run.events
    reach = WINDOW_S
    if len(known) >= MAX_RUNS:
        reach = min(max((now - known[-1].started) / 1e6, LEAST_S), WINDOW_S)
    return {stream: count / reach for stream, count in events.items()}
