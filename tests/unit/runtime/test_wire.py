"""Frames under honest and hostile bytes."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.model.function import AppSpec, FunctionSpec
from headrace.model.invocation import BatchInvocation
from headrace.model.outcome import Cause, Failure, Returned
from headrace.model.policy import MAX_FRAME_BYTES
from headrace.model.record import Append, Chunk
from headrace.runtime.protocol.frames import HEAD_BYTES, Frames, ProtocolError
from headrace.runtime.protocol.messages import (
    Answered,
    Ask,
    Done,
    Fork,
    Hello,
    InstanceFolder,
    Loaded,
    ReadState,
    RunMessage,
    StateRows,
    encode,
    from_child,
    from_zygote,
    pack_resources,
    to_child,
    to_zygote,
    unpack_resources,
)

INVOCATION = BatchInvocation(
    "shop.price", chunks=(Chunk("orders", 1, 5, 1, b"\x91\x91\xc4\x00", 9, 0, 1),)
)
DONE = Done(
    Returned(
        failures=(Failure(1, Cause("ValueError", "bad")),),
        appends=(Append("priced", 0, 1, b"x", ids=("a",)),),
        result=b"{}",
    )
)


def opened(data: bytes) -> list[tuple[int, bytes]]:
    frames = Frames().feed(data)
    assert not isinstance(frames, ProtocolError)
    return frames


def test_what_was_said_is_what_is_heard() -> None:
    ((nonce, body),) = opened(encode(2**64 - 1, DONE))
    assert nonce == 2**64 - 1
    assert from_child(body) == DONE
    ((_, body),) = opened(encode(0, RunMessage(INVOCATION)))
    assert to_child(body) == RunMessage(INVOCATION)


def test_a_declared_app_crosses_whole() -> None:
    spec = AppSpec(name="shop", functions=(FunctionSpec(name="shop.price", app="shop"),))
    loaded = Loaded(spec, 1, 2, "firmly", ["a note"], 0.5)
    ((_, body),) = opened(encode(0, loaded))
    assert from_zygote(body) == loaded
    packed = pack_resources(spec.functions[0].resources)
    order = Fork(
        "i",
        "shop.price",
        InstanceFolder("1", 7),
        InstanceFolder("2", 8),
        1,
        packed,
        {"orders": 4},
        0.0,
    )
    ((_, body),) = opened(encode(0, order))
    assert to_zygote(body) == order
    assert unpack_resources(packed) == spec.functions[0].resources


@given(st.lists(st.integers(min_value=1, max_value=200), max_size=30), st.integers(0, 2**64 - 1))
def test_frames_are_found_however_the_bytes_are_cut(cuts: list[int], nonce: int) -> None:
    said = [
        encode(nonce, DONE),
        encode(1, Hello(0.5)),
        encode(2, Ask(7, ReadState(["a", "b"]))),
        encode(3, DONE),
    ]
    data = b"".join(said)
    frames, heard, at = Frames(), [], 0
    for cut in [*cuts, len(data)]:
        got = frames.feed(data[at : at + cut])
        assert not isinstance(got, ProtocolError)
        heard += got
        at += cut
    assert [encoded for encoded, _ in heard] == [nonce, 1, 2, 3]
    assert [from_child(body) for _, body in heard][1:3] == [
        Hello(0.5),
        Ask(7, ReadState(["a", "b"])),
    ]
    assert frames.waiting == 0


@given(st.integers(min_value=0), st.integers(0, 7))
def test_one_flipped_bit_is_always_noticed(place: int, bit: int) -> None:
    data = bytearray(encode(77, DONE))
    place %= len(data)
    data[place] ^= 1 << bit
    frames = Frames(limit=4096).feed(bytes(data))
    if isinstance(frames, ProtocolError) or frames == []:
        return
    # Only the upper half of the nonce is not covered by the checksum: it is compared by its owner.
    assert 12 <= place < HEAD_BYTES
    assert frames[0][0] != 77


@given(st.binary(max_size=300))
def test_garbage_never_raises(garbage: bytes) -> None:
    frames = Frames(limit=1000)
    frames.feed(garbage)
    assert frames.waiting <= 1000 + HEAD_BYTES + len(garbage)
    for read in (from_child, to_child, from_zygote, to_zygote):
        read(garbage)


def test_a_gigabyte_is_refused_when_it_is_announced() -> None:
    answer = Frames().feed(struct.pack("<IIQ", 1 << 30, 0, 0))
    assert isinstance(answer, ProtocolError)
    assert "1073741824" in answer.reason


def test_a_broken_channel_stays_broken() -> None:
    frames = Frames()
    assert isinstance(frames.feed(b"\xff" * HEAD_BYTES), ProtocolError)
    assert isinstance(frames.feed(encode(1, Hello(0.0))), ProtocolError)
    assert frames.waiting == 0


def test_a_message_of_the_wrong_direction_is_not_understood() -> None:
    ((_, body),) = opened(encode(1, Answered(7, StateRows([(1, b"x")]))))
    assert isinstance(from_child(body), ProtocolError)
    ((_, body),) = opened(encode(1, DONE))
    assert isinstance(to_child(body), ProtocolError)


def test_what_is_larger_than_any_frame_is_not_said() -> None:
    with pytest.raises(ValueError, match="smaller batches"):
        encode(0, Done(Returned(result=bytes(MAX_FRAME_BYTES))))
