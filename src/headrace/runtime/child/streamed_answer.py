"""The answer of a handler that yields: part by part, as it comes or as one when it has ended.

In: what the handler yields. Out: parts, each handed to the host before the next one is asked for,
or the answer they make together. What cannot be a part raises here, inside the run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, runtime_checkable

from headrace.model.codec import encode_json
from headrace.model.errors import Misuse
from headrace.model.invocation import Invocation
from headrace.model.reply import WireReply, is_raw, joined
from headrace.runtime.child.recorder import Recorder
from headrace.runtime.child.results import Prepared, bare, deliver_cancellation, emit_one
from headrace.sdk.event import Event
from headrace.sdk.request import Reply
from headrace.sdk.results import Failures

Send: TypeAlias = Callable[[bytes, WireReply | None], None]


@runtime_checkable
class Listening(Protocol):
    """A host that sends parts on, blocking until another one can be sent."""

    def send_part(self, invocation: Invocation, body: bytes, head: WireReply | None) -> None:
        """Send on a part of the answer; `head` comes with the first or never."""
        ...


class Parts:
    """One answer. Sent on where there is a `send`, else kept."""

    def __init__(self, send: Send | None) -> None:
        self._send = send
        self._head: WireReply | None = None
        self._kept: list[bytes] = []
        self._has_started = self._raw = False

    def take(self, item: Any) -> None:
        """The next thing the handler yielded.

        Raises:
            Misuse: It cannot be a part, or a `Reply` comes too late to set a status.
        """
        head = None
        if isinstance(item, Reply):
            head = self._begin(item)
            if item.value is not None:
                self._hand_on(item.body, head)
            elif self._send is not None:
                self._send(b"", head)
        else:
            self._hand_on(_raw(item) if self._raw else encode_json(bare(item)), None)
        self._has_started = True

    def _begin(self, reply: Reply) -> WireReply:
        if self._has_started:
            raise Misuse(
                "a `Reply` was yielded behind other values, when status and headers are sent "
                "already; yield it first"
            )
        if reply.status in {204, 304}:
            raise Misuse(
                f"a `Reply(status={reply.status})` was yielded, which has no body for parts to be "
                "in; return it from a handler that does not yield"
            )
        self._head = WireReply(reply.status, reply.headers, reply.media, b"")
        self._raw = is_raw(self._head)
        return self._head

    def _hand_on(self, body: bytes, head: WireReply | None) -> None:
        if self._send is None:
            self._kept.append(body)
        else:
            self._send(body, head)

    def answer(self) -> bytes:
        """Join the collected parts."""
        return joined(self._head, self._kept)


def _raw(item: Any) -> bytes:
    if isinstance(item, str):
        return item.encode()
    if isinstance(item, (bytes, bytearray, memoryview)):
        return bytes(item)
    raise Misuse(
        f"`{item!r:.80}` was yielded behind a `Reply` with a media type of its own; "
        "yield `bytes` or `str` there"
    )


def sender(host: object, invocation: Invocation) -> Send | None:
    """Return the function that sends the parts of the run; None if they are collected.

    Raises:
        Misuse: They are to be sent on, and the host sends none.
    """
    if not invocation.live:
        return None
    if not isinstance(host, Listening):
        raise Misuse("this host sends no answers in parts")
    listening = host
    return lambda body, head: listening.send_part(invocation, body, head)


async def answer_in_parts(
    prepared: Prepared,
    recorder: Recorder,
    yielded: Any,
    event: Event[Any] | None,
    send: Send | None,
) -> bytes:
    """Iterate to the end; the answer as one where it was not sent on.

    Raises:
        Misuse: What was yielded cannot be a part of an answer.
    """
    parts = Parts(send)

    def take(item: Any) -> None:
        recorder.leave_if_forked()
        if not isinstance(item, Failures):
            parts.take(item)
        if not isinstance(item, Reply):
            emit_one(prepared, recorder, item, event)

    if prepared.awaits:
        async for item in yielded:
            take(item)
        await deliver_cancellation()
    else:
        for item in yielded:
            take(item)
    return parts.answer()
