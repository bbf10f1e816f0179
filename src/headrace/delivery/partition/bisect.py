"""Bisection: a failing batch is halved until the failing event is alone.

Pure. Halving spends no attempts, so other events keep theirs. Finding p failing events among n
takes at most p * (2 * ceil(log2 n) + 1) + 1 runs (each level of the tree runs two halves for each
of them).
"""

from __future__ import annotations

from headrace.delivery.unit import Unit, cut


def halves(unit: Unit) -> tuple[Unit, Unit]:
    """Return the first and the second half, in order, to be run separately and without a delay."""
    middle = unit.size // 2
    if middle == 0:
        raise ValueError("one event cannot be halved")
    return (
        Unit(cut(unit.chunks, 0, middle), cause=unit.cause),
        Unit(cut(unit.chunks, middle, unit.size), cause=unit.cause),
    )
