"""Order of waiting units, if several run at once. Pure.

A unit may run when it is due and no earlier unit, running or waiting, has one of its keys. So the
parts of a failed batch keep the order of each key, independent of the number of concurrent runs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from headrace.delivery.unit import FOREVER, Unit

Key = tuple[str, str | None]


def keys_of(unit: Unit, *, together: bool = False) -> set[Key]:
    """Return the keys of its events; events without a key block no unit, or count `together` as one key."""
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
    """Return the index of the first unit that may run now, and when (µs) the next one may.

    Args:
        pending: The waiting units, in order.
        running: The units that run, or have run and are not committed yet.
        now: Microseconds since the epoch.
        by_key: Whether keys have an order at all.
        together: Whether events without a key have an order too, as if they had one key.

    Returns:
        The index, or None, and the earliest time at which an unblocked unit is due; `FOREVER` if there is none.
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
        # Also a unit that may not run yet blocks later units of its keys.
        held |= keys
    return None, soonest
