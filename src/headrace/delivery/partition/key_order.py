"""Whose turn among units that wait to be run (again), where several run at once. Pure.

A unit may go when it is due and no unit before it, running or waiting, holds one of its keys: so the
pieces of a batch that failed keep the order of each key, however many workers there are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from headrace.delivery.unit import FOREVER, Unit

Key = tuple[str, str | None]


def keys_of(unit: Unit, *, together: bool = False) -> set[Key]:
    """The keys of its events; events without a key are in nobody's way, or `together` are one key."""
    return {
        (chunk.stream, event.key)
        for chunk in unit.chunks
        for event in chunk.events()
        if together or event.key is not None
    }


def turn(
    pending: Collection[Unit],
    running: Iterable[Unit],
    now: int,
    *,
    by_key: bool,
    together: bool = False,
) -> tuple[int | None, int]:
    """The place of the first unit that may go now, and when (µs) the next one may.

    Args:
        pending: What waits, in order.
        running: What runs, or has run and is not kept yet.
        now: Microseconds since the epoch.
        by_key: Whether keys have an order at all.
        together: Whether events without a key have one too, as if they had one key.

    Returns:
        The place, or None, and the earliest time at which one that nothing holds up is due;
        `FOREVER` where there is none.
    """
    held: set[Key] = set()
    if by_key:
        held.update(key for unit in running for key in keys_of(unit, together=together))
    soonest = FOREVER
    for place, unit in enumerate(pending):
        keys = keys_of(unit, together=together) if by_key else set[Key]()
        if held.isdisjoint(keys):
            if unit.due <= now:
                return place, now
            soonest = min(soonest, unit.due)
        held |= keys
    return None, soonest
