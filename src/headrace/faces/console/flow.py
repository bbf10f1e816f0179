"""How many events a second go into a function, told from the runs that are remembered. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from headrace.delivery.runs import MAX_RUNS, Run

WINDOW_S: Final = 10.0
LEAST_S: Final = 1.0

Remembered = Mapping[str, Sequence[Run]]
"""By function, the newest first, at most `MAX_RUNS`."""


def rates(runs: Remembered, now: int) -> dict[tuple[str, str], float]:
    """Events a second by function and the stream they came from, over the last ten seconds.

    Where what is remembered of a function does not reach back that far, the time it does reach back
    is what its events are divided by.
    """
    found = {}
    for function, known in runs.items():
        events: dict[str, int] = {}
        for run in known:
            if now - run.started > WINDOW_S * 1e6:
                break
            stream = run.first.rsplit("/", 2)[0]
            events[stream] = events.get(stream, 0) + run.events
        reach = WINDOW_S
        if len(known) >= MAX_RUNS:
            reach = min(max((now - known[-1].started) / 1e6, LEAST_S), WINDOW_S)
        for stream, count in events.items():
            found[function, stream] = count / reach
    return found


def newest(runs: Remembered, most: int, *, failed: bool = False) -> list[Run]:
    """The newest runs of all functions, newest first; with `failed`, of those that did not succeed."""
    chosen = [
        run
        for known in runs.values()
        for run in known[:most]
        if not failed or run.outcome != "succeeded"
    ]
    return sorted(chosen, key=lambda run: run.started, reverse=True)[:most]
