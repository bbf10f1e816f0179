"""A message that could not be leased to one program is offered to the next one that waits."""

from __future__ import annotations

import asyncio

import pytest

from headrace.delivery.queues.external_consumers import ExternalConsumers, LeasedMessage
from headrace.environment.randomness import SystemEntropy
from headrace.environment.tasks import Tasks
from headrace.model.errors import Unavailable
from headrace.model.event import Event
from headrace.model.function import FunctionSpec
from headrace.model.invocation import BatchInvocation, Invocation
from headrace.model.outcome import Returned
from headrace.model.record import Chunk, encode_events
from headrace.runtime.base import Run, Waiter, invoke
from headrace.storage.kv.memory import MemoryStorage
from headrace.testing.virtual_time import VirtualClock, VirtualLoop

NAME, WAIT_S = "shop.jobs.outside", 20.0
MESSAGE = Chunk("jobs", 0, 0, 1, encode_events([Event(b"1")]), 0, 0, 1)


def nobody_else(_: Invocation, __: Waiter, ___: Run | None = None, /) -> Run:
    raise AssertionError("every run is the queue's")


@pytest.mark.parametrize("moment", ["before", "after"])
def test_another_program_that_waits_is_called_when_a_lease_cannot_be_written(moment: str) -> None:
    loop = VirtualLoop()
    clock = VirtualClock(loop)
    storage = MemoryStorage(clock)
    failing = [moment]

    def fail(now: str) -> None:
        if now in failing:
            failing.clear()
            raise Unavailable("the disk is away")

    async def work() -> tuple[BaseException | list[LeasedMessage], ...]:
        outside = ExternalConsumers(storage, clock, SystemEntropy(), Tasks(lambda _, error: None))
        submit = outside.intercept(nobody_else)
        await outside.open(FunctionSpec(name=NAME, app="shop", timeout=60.0))
        asking = [asyncio.ensure_future(outside.receive(NAME, wait=WAIT_S)) for _ in range(2)]
        await clock.sleep(1.0)
        storage.faults = fail
        run = asyncio.ensure_future(invoke(submit, BatchInvocation(NAME, 60.0, chunks=(MESSAGE,))))
        asked = clock.monotonic()
        first, second = await asyncio.gather(*asking, return_exceptions=True)
        assert isinstance(first, Unavailable)
        if moment == "before":
            # At once, and not when its time to wait is over.
            assert isinstance(second, list)
            assert clock.monotonic() == asked
            assert await outside.acknowledge(NAME, second[0].receipt)
        else:
            # It landed, though nobody was told: the message is somebody's until its time is over.
            assert second == []
            run.cancel()
            return first, second
        assert await run == Returned()
        return first, second

    loop.drive(work())
    loop.close()
