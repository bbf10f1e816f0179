"""A node's worth of a foreign source in a process of its own, made to be killed.

Run as `python foreign_node.py FOLDER TRIGGER COUNT [LABEL PASS]`, the trigger as JSON; it ends once
its log holds COUNT events and nothing more came for a moment, and prints their values as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import msgspec

from headrace.environment import failpoints
from headrace.environment.clock import SystemClock
from headrace.environment.randomness import SystemEntropy
from headrace.environment.tasks import Tasks
from headrace.model.errors import Unavailable
from headrace.model.function import StreamSpec
from headrace.model.triggers.foreign import ForeignTrigger
from headrace.sources.base import SourceAppender
from headrace.sources.foreign.open import open_foreign
from headrace.storage.kv.sqlite.storage import SqliteStorage
from headrace.storage.log.embedded.log import EmbeddedBroker

OWN = "_app.read.foreign.0"
QUIET_S = 1.5


async def main(folder: Path, trigger: ForeignTrigger, count: int) -> None:
    clock = SystemClock()
    storage = await SqliteStorage.open(folder, clock=clock)
    tasks = Tasks(lambda name, error: sys.exit(f"{name}: {error!r}"))
    broker = EmbeddedBroker(storage, clock=clock, tasks=tasks)
    await broker.declare(StreamSpec(name=OWN, owner="app", dedupe_window=0))

    async def feed() -> None:
        while True:
            source = open_foreign("app.read", trigger, clock=clock, entropy=SystemEntropy())
            try:
                await source.run(SourceAppender(storage, broker, storage.apply, stream=OWN))
            except Unavailable:
                await clock.sleep(0.1)

    feeding = tasks.start(feed(), name="feed")
    while (await broker.extent(OWN, 0)).high < count:
        await clock.sleep(0.02)
    await clock.sleep(QUIET_S)
    feeding.cancel()
    await asyncio.gather(feeding, return_exceptions=True)
    chunks = await broker.fetch(OWN, 0, 0, events=1_000_000, size=1 << 30)
    sys.stdout.write(json.dumps([e.value.decode() for c in chunks for e in c.events()]))
    await broker.close()
    await tasks.close()
    await storage.close()


if __name__ == "__main__":
    if len(sys.argv) > 4:
        failpoints.kill_at(sys.argv[4], int(sys.argv[5]))
    wanted = msgspec.json.decode(sys.argv[2], type=ForeignTrigger)
    asyncio.run(main(Path(sys.argv[1]), wanted, int(sys.argv[3])))
