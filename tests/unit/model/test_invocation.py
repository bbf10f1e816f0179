"""Each kind of invocation holds what its run needs, on the wire too."""

from __future__ import annotations

import msgspec
import pytest

from headrace.model.invocation import (
    BatchInvocation,
    CallInvocation,
    CoalescedInvocation,
    ConsumerInvocation,
    Invocation,
    key_of,
)
from headrace.model.policy import CONVOY_SPARE_S
from headrace.model.record import Chunk, Position
from headrace.runtime.protocol.frames import HEAD_BYTES, ProtocolError
from headrace.runtime.protocol.messages import RunMessage, encode, to_child

ORDERS = Chunk("orders", 3, 40, 2, b"\x92", 9, 0, 2)
DERIVED = Chunk("prices", 0, 7, 1, b"\x91", 9, 0, 1, 4, "orders/3/40")
COMMON = 7
"""Fields that every kind has: the function, its time, token, key, trace, clock and seed."""

KINDS: list[tuple[Invocation, int]] = [
    (BatchInvocation("shop.price", chunks=(ORDERS,)), 5),
    (CoalescedInvocation("shop.price", chunks=(ORDERS,), each=1), 6),
    (CallInvocation("shop.price", event=b"\x91"), 4),
    (ConsumerInvocation("shop.price", held=(Position("orders", 3, 40),)), 1),
]


def body_of(invocation: Invocation) -> bytes:
    return encode(1, RunMessage(invocation))[HEAD_BYTES:]


@pytest.mark.parametrize(
    "invocation", [each for each, _ in KINDS], ids=lambda each: type(each).__name__
)
def test_an_instance_gets_the_kind_that_was_sent(invocation: Invocation) -> None:
    message = to_child(body_of(invocation))
    assert isinstance(message, RunMessage)
    assert type(message.invocation) is type(invocation)
    assert message.invocation == invocation


@pytest.mark.parametrize(("invocation", "own"), KINDS, ids=lambda each: type(each).__name__)
def test_only_what_its_run_needs_is_sent(invocation: Invocation, own: int) -> None:
    _, sent, _ = msgspec.msgpack.decode(body_of(invocation))
    tag, *fields = sent
    assert (tag, len(fields)) == (type(invocation).__struct_config__.tag, COMMON + own)


def test_another_kind_is_refused() -> None:
    run, (_, *fields), ahead = msgspec.msgpack.decode(body_of(KINDS[0][0]))
    found = to_child(msgspec.msgpack.encode([run, [5, *fields], ahead]))
    assert isinstance(found, ProtocolError)


def test_lineage_is_that_of_the_events_or_of_the_call() -> None:
    assert BatchInvocation("f", chunks=(ORDERS,)).lineage == (1, "orders/3/40")
    assert BatchInvocation("f", chunks=(ORDERS, DERIVED)).lineage == (5, "orders/3/40")
    assert CallInvocation("shop.f", key="shop.f:call/a1", event=b"").lineage == (1, "call/a1")
    assert ConsumerInvocation("f", held=()).lineage == (1, "")


def test_a_batch_of_a_group_is_an_invocation_of_its_own() -> None:
    group = CoalescedInvocation(
        "shop.f",
        CONVOY_SPARE_S + 3.0,
        11,
        "shop.f:orders/3/40",
        "00-trace",
        9,
        100,
        chunks=(ORDERS,),
        attempt=2,
        order="key",
        fresh=True,
        affinity="shop.f-1",
        each=1,
    )
    second = ORDERS.window(1, 2)
    assert group.batches == 2
    assert group.batch((second,), 1) == BatchInvocation(
        "shop.f",
        3.0,
        11,
        key_of("shop.f", second),
        "00-trace",
        9,
        101,
        chunks=(second,),
        attempt=2,
        order="key",
        fresh=True,
        affinity="shop.f-1",
    )
