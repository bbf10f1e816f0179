"""Checks of the changes of a group, and the rows that the group then writes: pure, for every driver.

Changes are checked in the order of their arrival, each against what is committed and what the
changes before it in the group will write. Nothing has been written when a change is refused, so
its neighbours in the group are not affected.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from headrace.model.effects import Change, Check, Put, RangeCheck, Space, digest_of
from headrace.model.errors import Conflict, Fenced
from headrace.storage.kv.base import Applied

Overlay = dict[Space, dict[bytes, bytes | None]]
Look = Callable[[Space, bytes], bytes | None]
Scan = Callable[[Space, bytes, bytes | None, int], list[tuple[bytes, bytes]]]


def judge(change: Change, overlay: Overlay, look: Look, scan: Scan) -> None:
    """Let the change pass.

    Args:
        change: What is to land.
        overlay: What the changes before it in the group will write.
        look: The value at a key, as committed.
        scan: Up to so many pairs of a range, as committed.

    Raises:
        Fenced: A check that fences does not hold.
        Conflict: Another check does not hold.
    """
    for check in change.checks:
        # A key that maps to None is a pending delete: only its absence from the overlay means that
        # the committed row still counts.
        waiting = overlay.get(check.space)
        found = (
            waiting[check.key]
            if waiting is not None and check.key in waiting
            else look(check.space, check.key)
        )
        holds = found is None if check.prefix is None else _starts(found, check.prefix)
        if not holds:
            raise _broken(check, found)
    for wanted in change.ranges:
        # Two changes of one group may touch the same range, so it is compared as the first leaves
        # it.
        rows = _rows_of(wanted, overlay.get(wanted.space, {}), scan)
        if len(rows) != wanted.count or digest_of(rows) != wanted.digest:
            raise Conflict(
                f"`{wanted.space}` holds other rows from `{wanted.low!r}` on than the "
                f"{wanted.count} that were seen: read them again and repeat"
            )


def look_through(overlay: Overlay, look: Look) -> Look:
    """The value at a key as the changes in `overlay` leave it."""

    def found(space: Space, key: bytes) -> bytes | None:
        waiting = overlay.get(space)
        return waiting[key] if waiting is not None and key in waiting else look(space, key)

    return found


def _rows_of(
    wanted: RangeCheck, waiting: Mapping[bytes, bytes | None], scan: Scan
) -> list[tuple[bytes, bytes]]:
    """The rows of the range as they would be found; of many more than were seen, some."""
    low, high = wanted.low, wanted.high
    changed = {
        key: value for key, value in waiting.items() if low <= key and (high is None or key < high)
    }
    # Pending deletes can hide as many committed rows as there are changes, and one row more than
    # expected is enough to see that the range has grown.
    found = scan(wanted.space, low, high, wanted.count + 1 + len(changed))
    if not changed:
        return found
    rows = dict(found) | changed
    return [(key, value) for key, value in sorted(rows.items()) if value is not None]


def _starts(found: bytes | None, prefix: bytes) -> bool:
    return found is not None and found.startswith(prefix)


def _broken(check: Check, found: bytes | None) -> Fenced | Conflict:
    seen = "nothing" if found is None else f"`{found[:16].hex()}`"
    wanted = "nothing" if check.prefix is None else f"`{check.prefix[:16].hex()}`"
    where = f"`{check.space}` at `{check.key!r}`"
    # A lost lease ends the owner's work on the partition; a conflict is only a stale read, to be
    # repeated.
    if check.fence:
        return Fenced(
            f"{where} holds {seen}, not {wanted}: another owner has taken over; "
            "let go of the partition"
        )
    return Conflict(
        f"{where} holds {seen}, not {wanted}: it has changed since it was read; "
        "read it again and repeat"
    )


def overlay_change(change: Change, applied: Applied, overlay: Overlay) -> None:
    """Add what the change writes; the last write of a key is the one that counts."""
    for put in change.puts:
        overlay.setdefault(put.space, {})[put.key] = put.value
    for gone in change.deletes:
        overlay.setdefault(gone.space, {})[gone.key] = None
    for row in applied.rows:
        # Rows that the appender made (ids, waiting messages) are in the overlay as well, so that
        # the next change of the group finds them.
        value = row.value if isinstance(row, Put) else None
        overlay.setdefault(row.space, {})[row.key] = value


def only_appends(change: Change) -> bool:
    """Return True for a producer's change, which adds work and finishes none."""
    return bool(change.appends) and not (
        change.puts or change.deletes or change.checks or change.ranges
    )
