"""A function that says far more than is kept is slowed down; it does not keep its host busy."""

from __future__ import annotations

import time
from pathlib import Path

from tests.integration.runtime_fleets import house

APP = """
@app.function(orders)
def shouts(events, context):
    while True: print("x" * 10_000)
@app.function(orders)
def sleeps(events, context):
    time.sleep(60)
"""
SECONDS = 2.0
SHARE = 0.1
"""Of a processor, beside what is spent on a run that says nothing."""


async def test_a_flood_of_lines_takes_a_small_share_of_the_host_however_fast_it_comes(
    tmp_path: Path,
) -> None:
    async with house(tmp_path) as home:
        await home.deploy(APP)
        await home.run("sleeps", within=0.1)
        began = time.thread_time()
        await home.run("sleeps", within=SECONDS)
        quiet = time.thread_time() - began
        began = time.thread_time()
        await home.run("shouts", within=SECONDS)
        loud = time.thread_time() - began
        assert loud - quiet < SHARE * SECONDS, (loud, quiet)
        assert any("lines were dropped" in line for line in home.said())
