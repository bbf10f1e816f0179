"""Which changes of a group may land, and what the group then writes: pure, for every driver.

Changes are judged in the order they came, each against what is committed and what the changes
before it in the group will write. Nothing has been written when a change is turned down, so it
takes nobody with it.
"""

from __future__ import annotations

from collections.abc import Callable

from headrace.keepers.storage.base import Applied
from headrace.model.effects import Change, Check, Space
from headrace.model.errors import Conflict, Fenced

Overlay = dict[Space, dict[bytes, bytes | None]]
Look = Callable[[Space, bytes], bytes | None]


def judge(change: Change, overlay: Overlay, look: Look) -> None:
    """Let the change pass.

    Raises:
        Fenced: A check that fences does not hold.
        Conflict: Another check does not hold.
    """
    for check in change.checks:
        waiting = overlay.get(check.space)
        found = (
            waiting[check.key]
            if waiting is not None and check.key in waiting
            else look(check.space, check.key)
        )
        holds = found is None if check.prefix is None else _starts(found, check.prefix)
        if not holds:
            raise _broken(check, found)


def _starts(found: bytes | None, prefix: bytes) -> bool:
    return found is not None and found.startswith(prefix)


def _broken(check: Check, found: bytes | None) -> Fenced | Conflict:
    seen = "nothing" if found is None else f"`{found[:16].hex()}`"
    wanted = "nothing" if check.prefix is None else f"`{check.prefix[:16].hex()}`"
    where = f"`{check.space}` at `{check.key!r}`"
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
    for put in (*change.puts, *applied.rows) if applied.rows else change.puts:
        overlay.setdefault(put.space, {})[put.key] = put.value
    for gone in change.deletes:
        overlay.setdefault(gone.space, {})[gone.key] = None


def only_appends(change: Change) -> bool:
    """Whether it brings new work and finishes none: a producer's change."""
    return bool(change.appends) and not (change.puts or change.deletes or change.checks)
