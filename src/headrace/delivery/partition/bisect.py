"""Which half: a failing batch is cut until the poison stands alone.

Pure. Halving spends no attempts, so the innocent keep theirs; finding p poisonous events among n
takes at most p * (2 * ceil(log2 n) + 1) + 1 runs (each level of the tree runs two halves a poison).
"""

from __future__ import annotations

from headrace.delivery.unit import Unit, cut


def halves(unit: Unit) -> tuple[Unit, Unit]:
    """The first and the second half, in order, to be run at once and apart."""
    middle = unit.size // 2
    if middle == 0:
        raise ValueError("one event cannot be halved")
    return (
        Unit(cut(unit.chunks, 0, middle), cause=unit.cause),
        Unit(cut(unit.chunks, middle, unit.size), cause=unit.cause),
    )
