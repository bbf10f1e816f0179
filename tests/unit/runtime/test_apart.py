"""A convoy in an instance: every batch is an invocation of its own, until one does more than publish."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.runtime.hosting import Host
from tests.unit.runtime.test_executor import drive

from headrace import App, Batch, Context, Event
from headrace.model.event import Event as Fact
from headrace.model.invocation import CoalescedInvocation
from headrace.model.outcome import Returned
from headrace.model.policy import CONVOY_SPARE_S
from headrace.model.record import Chunk, decode_events, encode_events
from headrace.runtime.child.executor import Executor


def blob(first: int, count: int, *, low: int = 0, high: int = 0) -> Chunk:
    """Numbers at the offsets that are their values."""
    body = encode_events([Fact(b"%d" % n, f"k{n}") for n in range(first, first + count)])
    return Chunk("numbers", 1, first, count, body, 0, low, high or count)


class Rig:
    """An app with one function, and the means to send it a convoy."""

    def __init__(self, handler: Callable[..., Any], **options: Any) -> None:
        self.now = 0.0
        self.app = App("shop")
        self.out = self.app.stream("out")
        numbers = self.app.stream("numbers", 4, int)
        self.app.function(numbers, name="f", output=self.out, **options)(handler)
        self.executor = Executor(self.app, Host(), monotonic=lambda: self.now)

    def run(self, *chunks: Chunk, each: int) -> Returned:
        timeout = 1.0 + CONVOY_SPARE_S
        return drive(
            self.executor,
            CoalescedInvocation("shop.f", timeout, 7, seed=3, chunks=chunks, each=each),
        )


def values(returned: Returned) -> list[bytes]:
    return [event.value for append in returned.appends for event in decode_events(append.body)]


def test_every_batch_has_a_context_of_its_own() -> None:
    seen: list[tuple[list[int], list[str], float, float]] = []

    def handler(events: Batch[int], context: Context) -> None:
        names = [context.idempotency_key, *(context.idempotency_key for _ in events)]
        values = [event.value for event in events]
        seen.append((values, names, context.random.random(), context.remaining()))

    rig = Rig(handler)
    returned = rig.run(blob(0, 3), blob(3, 4, low=1), each=2)

    assert returned == Returned()
    assert [numbers for numbers, *_ in seen] == [[0, 1], [2, 4], [5, 6]]
    assert seen[1][1] == ["shop.f:numbers/1/2", "shop.f/numbers/1/2", "shop.f/numbers/1/4"]
    assert len({drawn for *_, drawn, _ in seen}) == 3
    assert [left for *_, left in seen] == [pytest.approx(1.0)] * 3


def test_outputs_of_all_batches_come_back_in_order_each_with_its_own_lineage() -> None:
    rig = Rig(lambda event: event.value * 10)

    returned = rig.run(blob(0, 3), each=1)

    assert values(returned) == [b"0", b"10", b"20"]
    assert [append.origin for append in returned.appends] == [f"numbers/1/{n}" for n in range(3)]


def test_a_batch_that_raises_ends_the_convoy_and_those_before_it_are_done() -> None:
    def handler(events: Batch[int], context: Context) -> None:
        for event in events:
            context.publish(rig.out, event.value)
            if event.value == 3:
                raise ValueError("three")

    rig = Rig(handler)
    returned = rig.run(blob(0, 8), each=2)

    assert returned.error is not None
    assert returned.error.kind == "ValueError"
    assert (returned.done, returned.untouched) == ((0, 1), 4)
    assert values(returned) == [b"0", b"1"]


def test_an_event_that_fails_ends_the_convoy() -> None:
    def handler(event: Event[int]) -> int:
        if event.value == 2:
            raise ValueError("two")
        return event.value

    returned = Rig(handler).run(blob(0, 5), each=1)

    assert [(failed.index, failed.cause.kind) for failed in returned.failures] == [
        (2, "ValueError")
    ]
    assert returned.untouched == 3
    assert values(returned) == [b"0", b"1"]


def test_a_batch_that_touched_state_is_the_last_of_its_convoy() -> None:
    def handler(event: Event[int], context: Context) -> None:
        if event.value == 1:
            context.state.update("seen", lambda n: (n or 0) + 1)

    returned = Rig(handler).run(blob(0, 4), each=1)

    assert returned.untouched == 2
    assert [read.key for read in returned.reads] == ["seen"]
    assert [write.key for write in returned.writes] == ["seen"]


def test_no_batch_begins_late() -> None:
    def handler(event: Event[int]) -> int:
        rig.now += CONVOY_SPARE_S / 4
        return event.value

    rig = Rig(handler)
    returned = rig.run(blob(0, 9), each=1)

    assert returned.untouched == 3
    assert values(returned) == [b"0", b"1", b"2"]


def test_asynchronous_handlers_travel_too() -> None:
    async def handler(event: Event[int]) -> int:
        return event.value

    assert values(Rig(handler).run(blob(0, 4), each=1)) == [b"0", b"1", b"2", b"3"]


def test_events_that_cannot_be_opened_fail_the_convoy_as_a_whole() -> None:
    broken = Chunk("numbers", 1, 0, 2, b"\x92\xc1\xc1", 0, 0, 2)

    returned = Rig(lambda event: None).run(blob(0, 2), broken, each=1)

    assert returned.error is not None
    assert returned.done == ()
