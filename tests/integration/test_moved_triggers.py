"""A node whose app has lost a trigger says what that has left behind."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from headrace.node.assembly import Node, running
from headrace.node.config import Settings

APP = """
from headrace import App, Every, Retry

app = App("clockwork")


@app.function({triggers}{retry})
def tick(event):
    raise ValueError("not today")
"""
STREAM = "_clockwork.tick.every.0"


def settings(folder: Path, triggers: str) -> Settings:
    folder.chmod(folder.stat().st_mode | 0o755)
    target = folder / "clockwork.py"
    # A function that is only called has no retries to set.
    retry = "retry=Retry(attempts=9, initial_delay=60.0)" if triggers else ""
    target.write_text(APP.format(triggers=triggers, retry=retry))
    return Settings(targets=(str(target),), data=folder / "data")


async def has_fired(node: Node, times: int) -> None:
    async with asyncio.timeout(20):
        while (await node.broker.extent(STREAM, 0)).high < times:  # noqa: ASYNC110 - a log has no event
            await asyncio.sleep(0.01)


async def test_a_node_says_what_a_trigger_that_was_taken_away_has_left(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="headrace.node")
    async with running(settings(tmp_path, 'Every("0.1s"), ')) as node:
        await has_fired(node, 2)
    assert STREAM not in caplog.text
    async with running(settings(tmp_path, "")):
        pass
    assert f"`{STREAM}` holds" in caplog.text
    assert "none of its triggers reads it any more" in caplog.text
