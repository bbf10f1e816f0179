"""What the partition supervisor does with a deployment at the wrong moment."""

from __future__ import annotations

import asyncio

from msgspec.structs import replace
from tests.unit.delivery.making import engine_over, runtime_over

from headrace.delivery.assignment.supervisor import PartitionSupervisor
from headrace.model.function import AppSpec, FunctionSpec, StreamSpec
from headrace.model.invocation import Invocation
from headrace.model.triggers.base import StreamTrigger
from headrace.runtime.base import Run, Waiter
from headrace.storage.kv.memory import MemoryStorage
from headrace.storage.log.memory import MemoryBroker
from headrace.testing.virtual_time import VirtualClock, VirtualLoop

PRICE = FunctionSpec(name="shop.price", app="shop", triggers=(StreamTrigger(streams=("orders",)),))
APP = AppSpec(name="shop", streams=(StreamSpec(name="orders", owner="shop"),), functions=(PRICE,))


class Hesitant(MemoryBroker):
    """A log that takes a moment to declare a stream."""

    async def declare(self, spec: StreamSpec) -> StreamSpec:
        await asyncio.sleep(0)
        return await super().declare(spec)


def nothing_runs(_: Invocation, __: Waiter, ___: Run | None = None, /) -> Run:
    raise AssertionError("no function is run here")


async def stopped_amid(loop: VirtualLoop) -> tuple[str, list[str]]:
    """What a deployment says that was being prepared when the node stopped, and what failed."""
    clock = VirtualClock(loop)
    storage = MemoryStorage(clock)
    broker = Hesitant(storage, clock=clock)
    failures: list[str] = []
    engine = engine_over(storage, broker, clock)
    supervisor = PartitionSupervisor(
        engine=engine,
        runtime=runtime_over(engine, nothing_runs),
        on_failure=lambda name, error: failures.append(f"{name}: {error!r}"),
    )
    await supervisor.deploy(APP)
    changed = replace(APP, functions=(replace(PRICE, timeout=7.0),))
    said, _ = await asyncio.gather(
        supervisor.deploy(changed), supervisor.close(1.0), return_exceptions=True
    )
    await broker.close()
    return repr(said), failures


def test_a_deployment_that_a_stopping_node_overtakes_is_refused() -> None:
    loop = VirtualLoop()
    try:
        said, failures = loop.drive(stopped_amid(loop))
    finally:
        loop.close()
    assert said == "Unavailable('the node is stopping; `shop` is not deployed any more')"
    assert failures == []
