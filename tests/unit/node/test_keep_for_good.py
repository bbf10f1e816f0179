"""Objects of a started node are left out of garbage collection."""

from __future__ import annotations

import gc
import weakref

from headrace.node.lifecycle import keep_for_good


class _Part:
    def __init__(self) -> None:
        self.itself = self


def test_the_collector_passes_by_what_was_there_and_finds_what_a_reload_left() -> None:
    part = _Part()
    left = weakref.ref(part)
    try:
        keep_for_good()
        assert gc.get_freeze_count() > 1_000
        del part
        gc.collect()
        assert left() is not None
        keep_for_good()
        assert left() is None
    finally:
        gc.unfreeze()
