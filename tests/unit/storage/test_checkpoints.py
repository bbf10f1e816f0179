"""The write-ahead log goes into the file while commits go on."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

from headrace.environment import failpoints
from headrace.environment.clock import SystemClock
from headrace.model.effects import Change, Put, Space
from headrace.storage.kv.sqlite.checkpoint import CHECKPOINT_PAGES
from headrace.storage.kv.sqlite.data_folder import PAGE_BYTES
from headrace.storage.kv.sqlite.storage import SqliteStorage

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
