"""Work in slices: others have their turn after so many steps, however many rows there are."""

from __future__ import annotations

import asyncio

from headrace.environment.time_slices import SLICE_S, Slices
from headrace.testing.virtual_time import VirtualClock, VirtualLoop

STEPS = 5
"""How many steps of `Ticking` fit into a slice."""


class Ticking(VirtualClock):
    """Between two looks at it passes the same share of a slice."""

    seconds = 0.0

    def monotonic(self) -> float:
        self.seconds += SLICE_S / STEPS
        return self.seconds


def test_others_have_their_turn_after_so_many_rows() -> None:
    loop = VirtualLoop()
    slices: list[int] = []
    rows = 0

    async def work() -> None:
        nonlocal rows
        async for row in Slices(Ticking(loop)).over(range(1_000)):
            assert row == rows + sum(slices)
            rows += 1

    async def others(working: asyncio.Task[None]) -> None:
        nonlocal rows
        while not working.done():
            slices.append(rows)
            rows = 0
            await asyncio.sleep(0)

    async def both() -> None:
        working = asyncio.create_task(work())
        await others(working)
        await working

    loop.drive(both())
    assert rows + sum(slices) == 1_000
    assert max(slices) <= STEPS + 1
