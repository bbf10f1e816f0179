"""A process that writes until it is killed, and says on its output what was acknowledged.

Run as `python storage_writer.py FOLDER [LABEL PASSES]`; with a label it kills itself there.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from headrace.environment import failpoints
from headrace.environment.clock import SystemClock
from headrace.environment.tasks import Tasks
from headrace.model.effects import Change, Put, Space
from headrace.model.event import Event
from headrace.model.function import StreamSpec
from headrace.model.record import Append, encode_events
from headrace.storage.kv.sqlite.storage import SqliteStorage
from headrace.storage.log.embedded.log import EmbeddedBroker

WRITERS = 8


async def main(folder: Path) -> None:
    clock = SystemClock()
    storage = await SqliteStorage.open(folder, clock=clock)
    tasks = Tasks(lambda _name, error: sys.exit(f"housekeeping failed: {error!r}"))
    broker = EmbeddedBroker(storage, clock=clock, tasks=tasks)
    await broker.declare(StreamSpec(name="s", partitions=2))
    begun = await storage.scan(Space.STATE, b"", limit=1_000)
    next_number = {key: int(value) + 1 for key, value in begun}

    async def write(writer: int) -> None:
        key = b"writer-%d" % writer
        number = next_number.get(key, 0)
        while True:
            body = encode_events([Event(b"%d:%d" % (writer, number) + b"." * 5_000)])
            await storage.apply(
                Change(
                    puts=(Put(Space.STATE, key, b"%d" % number),),
                    appends=(Append("s", writer % 2, 1, body),),
                )
            )
            os.write(1, b"%d %d\n" % (writer, number))
            number += 1

    await asyncio.gather(*map(write, range(WRITERS)))


if __name__ == "__main__":
    if len(sys.argv) > 2:
        failpoints.kill_at(sys.argv[2], int(sys.argv[3]))
    asyncio.run(main(Path(sys.argv[1])))
