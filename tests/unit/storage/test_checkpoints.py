"""The write-ahead log goes into the file while commits go on."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

from headrace.keepers.storage.sqlite.checkpoint import CHECKPOINT_PAGES
from headrace.keepers.storage.sqlite.file import PAGE_BYTES
from headrace.keepers.storage.sqlite.storage import SqliteStorage
from headrace.model.effects import Change, Put, Space
from headrace.world import failpoints
from headrace.world.clock import SystemClock

LARGE = bytes(1 << 20)
PATIENCE_S = 60.0


def put(number: int, value: bytes) -> Change:
    return Change(puts=(Put(Space.STATE, b"k%d" % number, value),))


async def test_a_log_that_is_long_enough_is_copied_and_begun_anew(tmp_path: Path) -> None:
    passes: list[str] = []
    storage = await SqliteStorage.open(tmp_path, clock=SystemClock(), reserve=4096)
    for label in ("checkpoint:before", "checkpoint:after"):
        failpoints.arm(label, partial(passes.append, label))
    try:
        await storage.apply(put(0, b""))
        assert passes == []
        count = CHECKPOINT_PAGES * PAGE_BYTES // len(LARGE) + 1
        # Together, so that they are one commit.
        await asyncio.gather(*(storage.apply(put(number, LARGE)) for number in range(count)))
        async with asyncio.timeout(PATIENCE_S):
            while "checkpoint:after" not in passes:
                await storage.apply(put(0, b""))
        assert passes == ["checkpoint:before", "checkpoint:after"]
    finally:
        failpoints.disarm()
        await storage.close()
