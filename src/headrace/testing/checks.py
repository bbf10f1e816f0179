"""Checks behind the assertions of a world: plain functions that return or raise.

In: what was found, and what it is called in the complaint. Out: nothing, or an `AssertionError` that
names what is doubled, lost, late or unfinished. Nothing is looked up here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Sequence
from typing import Any

from headrace.admin.lag import LagRow

SHOWN = 5


def check_exactly_once(
    name: str,
    where: str,
    found: Iterable[Hashable],
    wanted: Collection[Hashable],
) -> None:
    """Complain of what was found twice, and of what was wanted and not found."""
    seen = Counter(found)
    doubled = [f"{what!r} {times} times" for what, times in seen.items() if times > 1]
    lost = [repr(what) for what in wanted if what not in seen]
    if doubled or lost:
        raise AssertionError(
            f"`{name}` does not hold everything exactly once in {where}\n"
            f"  doubled: {_some(doubled)}\n  lost: {_some(lost)}"
        )


def check_finished(where: str, rows: Iterable[LagRow]) -> None:
    """Complain of partitions that are behind."""
    behind = [
        f"`{row.function}` at {row.stream}/{row.partition}: {row.lag} behind, {row.state}"
        for row in rows
        if row.lag
    ]
    if behind:
        raise AssertionError(f"not everything is finished in {where}: {_some(behind)}")


def check_order(name: str, where: str, rows: Iterable[tuple[Any, Any, str]]) -> None:
    """Complain where, in one lane, something stands behind what ranks higher.

    Args:
        name: Of the function or stream.
        where: Of which world.
        rows: Lane (its last part the key), rank and place of each, as they came.
    """
    last: dict[Any, tuple[Any, str]] = {}
    for lane, rank, place in rows:
        if lane in last and rank < last[lane][0]:
            raise AssertionError(
                f"`{name}` is out of order for key {lane[-1]!r} in {where}: "
                f"`{place}` came after `{last[lane][1]}`"
            )
        last[lane] = rank, place


def _some(lines: Sequence[str]) -> str:
    shown = ", ".join(lines[:SHOWN]) or "none"
    return shown if len(lines) <= SHOWN else f"{shown} and {len(lines) - SHOWN} more"
