"""The contract of foreign sources over every system whose server can run here."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.contract.foreign_suite import ForeignContract, failing, node, numbered
from tests.services.systems import AWS, SYSTEMS, System

from headrace.model.triggers.foreign import ForeignTrigger

NODE = Path(__file__).with_name("foreign_node.py")
__all__ = ["failing", "node"]


@pytest.fixture(scope="module", params=sorted(SYSTEMS))
def system(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[System]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in AWS.items():
            patch.setenv(name, value)
        opened = SYSTEMS[request.param](tmp_path_factory.mktemp(request.param))
        yield opened
        opened.close()


class TestForeignSystems(ForeignContract):
    """Every promise, kept by every system."""


def run_node(folder: Path, trigger: ForeignTrigger, count: int, *label: str) -> list[str] | None:
    """What the node's log holds at its end; None where it was killed at `label`."""
    asked = msgspec.json.encode(trigger).decode()
    ran = subprocess.run(
        [sys.executable, str(NODE), str(folder), asked, str(count), *label],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if ran.returncode == -signal.SIGKILL:
        return None
    assert ran.returncode == 0, ran.stderr
    found: list[str] = json.loads(ran.stdout)
    return found


async def test_a_process_killed_between_append_and_acknowledge_doubles_nothing(
    system: System, tmp_path: Path
) -> None:
    queue = await system.make()
    trigger = system.trigger(queue)
    run_node(tmp_path / "data", trigger, 0)
    sent = numbered(30)
    await system.send(queue, sent)
    deaths = 0
    for label, at in (
        ("feed:after-append", "1"),
        ("feed:before-append", "1"),
        ("commit:after-fsync", "3"),
        ("feed:after-acknowledge", "1"),
    ):
        await system.send(queue, numbered(3, begin=len(sent)))
        sent += numbered(3, begin=len(sent))
        deaths += (
            await asyncio.to_thread(run_node, tmp_path / "data", trigger, len(sent), label, at)
            is None
        )
    found = await asyncio.to_thread(run_node, tmp_path / "data", trigger, len(sent))
    assert deaths >= 2
    assert found is not None
    assert sorted(found) == [value.decode() for value in sent]
