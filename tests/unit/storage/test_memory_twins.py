"""The storage and logs in memory, as a simulation uses them: no suspending, faults, crashes."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from headrace.environment.clock import SystemClock
from headrace.model.effects import Change, Put, Space
from headrace.model.event import Event
from headrace.model.function import StreamSpec
from headrace.model.record import Append, encode_events
from headrace.storage.kv.memory import MemoryStorage
from headrace.storage.log.memory import MemoryBroker

T = TypeVar("T")
PUT = Change(puts=(Put(Space.STATE, b"key", b"value"),))


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never suspends."""
    try:
        work.send(None)
    except StopIteration as ended:
        result: T = ended.value
        return result
    raise AssertionError("it suspended")


def test_nothing_suspends_without_a_fault() -> None:
    storage = MemoryStorage(SystemClock())
    broker = MemoryBroker(storage, clock=SystemClock())
    at_once(broker.declare(StreamSpec(name="s")))
    at_once(storage.apply(Change(appends=(Append("s", 0, 1, encode_events([Event(b"x")])),))))
    at_once(storage.apply(PUT))
    assert at_once(storage.get(Space.STATE, b"key")) == b"value"
    assert len(at_once(broker.fetch("s", 0, 0, events=1, size=1))) == 1


@pytest.mark.parametrize(("moment", "landed"), [("before", None), ("after", b"value")])
async def test_a_fault_strikes_before_or_after_a_change_lands(
    moment: str, landed: bytes | None
) -> None:
    def strike(now: str) -> None:
        if now == moment:
            raise ConnectionError("planted")

    storage = MemoryStorage(SystemClock(), faults=strike)
    with pytest.raises(ConnectionError):
        await storage.apply(PUT)
    assert await storage.get(Space.STATE, b"key") == landed


async def test_a_fault_may_make_a_change_wait() -> None:
    waited: list[str] = []

    async def wait(now: str) -> None:
        waited.append(now)

    storage = MemoryStorage(SystemClock(), faults=wait)
    await storage.apply(PUT)
    assert waited == ["before", "after"]


async def test_a_new_broker_finds_what_a_crashed_one_had_landed() -> None:
    storage = MemoryStorage(SystemClock())
    crashed = MemoryBroker(storage, clock=SystemClock())
    await crashed.declare(StreamSpec(name="s"))
    body = encode_events([Event(b"x")])
    await storage.apply(Change(appends=(Append("s", 0, 1, body, ids=("1",)),)))
    crashed.stage([Append("s", 0, 1, body)], lambda _space, _key: None)
    MemoryBroker(storage, clock=SystemClock())
    again = (Append("s", 0, 1, body, ids=("1",)), Append("s", 0, 1, body))
    applied = await storage.apply(Change(appends=again))
    assert applied.duplicates == 1
    assert str(applied.positions[1]) == "s/0/1"
