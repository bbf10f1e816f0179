"""A process that is killed while it writes loses nothing it has acknowledged, and halves nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import apsw
import pytest

from headrace.environment.clock import SystemClock
from headrace.environment.tasks import Tasks
from headrace.model.effects import Space
from headrace.storage.kv.sqlite.data_folder import FILE_NAME
from headrace.storage.kv.sqlite.page_checksums import load_layer
from headrace.storage.kv.sqlite.storage import SqliteStorage
from headrace.storage.log.embedded.log import EmbeddedBroker

WRITER = Path(__file__).with_name("storage_writer.py")
LABELS = [
    "append:before-commit",
    "append:after-commit",
    "commit:before-write",
    "commit:after-write",
    "commit:before-fsync",
    "commit:after-fsync",
    "checkpoint:before",
    "checkpoint:after",
    "recovery:opened",
]


def write_until_killed(folder: Path, *label: str, lines: int) -> Counter[int]:
    """How many changes of each writer were acknowledged before the end."""
    command = [sys.executable, str(WRITER), str(folder), *label]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        seen = []
        for line in process.stdout:
            seen.append(line)
            if len(seen) == lines:
                process.kill()
        assert process.wait(30) == -signal.SIGKILL
    highest: Counter[int] = Counter()
    for line in seen:
        if line.endswith(b"\n"):
            writer, number = map(int, line.split())
            highest[writer] = max(highest[writer], number + 1)
    return highest


async def audit(folder: Path, acknowledged: Counter[int]) -> Counter[int]:
    """Judge what is there after a restart; says how many changes of each writer landed."""
    # Without it, the last connection to close would write pages of the log back without their checksums.
    load_layer()
    check = apsw.Connection(str(folder / FILE_NAME))
    assert check.pragma("integrity_check") == "ok"
    check.close()
    clock = SystemClock()
    failures: list[BaseException] = []
    tasks = Tasks(lambda _name, error: failures.append(error))
    storage = await SqliteStorage.open(folder, clock=clock)
    broker = EmbeddedBroker(storage, clock=clock, tasks=tasks)
    state = Counter(
        {
            int(key.removeprefix(b"writer-")): int(value) + 1
            for key, value in await storage.scan(Space.STATE, b"")
        }
    )
    events: dict[int, list[int]] = {}
    for partition in range(broker.stream("s").partitions):
        offset = 0
        while chunks := await broker.fetch("s", partition, offset, events=1_000, size=1 << 20):
            for chunk in chunks:
                assert chunk.start == offset
                offset = chunk.end
                for event in chunk.events():
                    writer, number = map(int, event.value.rstrip(b".").split(b":"))
                    events.setdefault(writer, []).append(number)
    await broker.close()
    await storage.close()
    await tasks.close()
    assert failures == []
    for numbers in events.values():
        assert numbers == list(range(len(numbers))), "lost, doubled or out of order"
    assert {writer: len(numbers) for writer, numbers in events.items()} == dict(state)
    assert all(state[writer] >= count for writer, count in acknowledged.items())
    return state


async def test_what_was_acknowledged_survives_being_killed_again_and_again(tmp_path: Path) -> None:
    landed: Counter[int] = Counter()
    for lines in (1, 300, 1_500, 2_000):
        acknowledged = write_until_killed(tmp_path, lines=lines)
        assert acknowledged
        landed = await audit(tmp_path, landed | acknowledged)


@pytest.mark.parametrize("label", LABELS)
async def test_a_death_at_any_named_point_loses_nothing(tmp_path: Path, label: str) -> None:
    landed: Counter[int] = Counter()
    for passes in ("1", "2", "5"):
        # A process passes its own opening only once.
        point = (label, "1" if label == "recovery:opened" else passes)
        acknowledged = write_until_killed(tmp_path, *point, lines=20_000)
        if landed or acknowledged:
            landed = await audit(tmp_path, landed | acknowledged)
    assert label == "recovery:opened" or landed
