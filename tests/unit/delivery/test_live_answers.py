"""Parts of an answer reach who waits for them, are remembered within a bound, and nobody else's."""

from __future__ import annotations

import asyncio

import pytest

from headrace.delivery.calls.streaming import MAX_REMEMBERED_BYTES, LiveAnswer, LiveAnswers
from headrace.model.errors import Fenced, TooLarge
from headrace.model.reply import WireReply, open_reply


class Ear:
    """Notes what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[bytes, WireReply | None]] = []

    async def take(self, body: bytes, head: WireReply | None) -> None:
        self.heard.append((body, head))


def test_parts_of_a_call_nobody_waits_for_are_refused() -> None:
    answers, ear = LiveAnswers(), Ear()
    live = LiveAnswer(ear, remembered=False)
    answers.open(7, live)
    asyncio.run(answers.take(7, b"1", None))
    answers.close(7)
    for token in (7, 8):
        with pytest.raises(Fenced):
            asyncio.run(answers.take(token, b"2", None))
    assert ear.heard == [(b"1", None)]
    assert (live.begun, live.whole()) == (True, b"[]")


def test_a_remembered_answer_is_kept_as_one() -> None:
    head = WireReply(201, {}, "text/plain", b"")
    ear = Ear()
    live = LiveAnswer(ear, remembered=True)
    for part, its in ((b"", head), (b"a", None), (b"b", None)):
        asyncio.run(live.take(part, its))
    assert open_reply(live.whole()) == WireReply(201, {}, "text/plain", b"ab")
    assert len(ear.heard) == 3


def test_an_answer_too_long_to_be_remembered_is_refused_before_it_is_sent() -> None:
    ear = Ear()
    live = LiveAnswer(ear, remembered=True)
    asyncio.run(live.take(bytes(MAX_REMEMBERED_BYTES), None))
    with pytest.raises(TooLarge, match="Idempotency-Key"):
        asyncio.run(live.take(b"1", None))
    assert len(ear.heard) == 1
