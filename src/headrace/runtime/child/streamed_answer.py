"""Answer of a generator handler: sent in parts as they are yielded, or joined at the end.

In: yielded values. Out: parts, each sent to the host before the next one is requested, or one joined answer. A
value that cannot be a part raises here, inside the run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, runtime_checkable

from headrace.model.codec import encode_json
from headrace.model.errors import Misuse
from headrace.model.invocation import CallInvocation, Invocation
from headrace.model.reply import WireReply, is_raw, joined
from headrace.runtime.child.recorder import Recorder
from headrace.runtime.child.results import Prepared, bare, deliver_cancellation, emit_one
from headrace.sdk.event import Event
from headrace.sdk.request import Reply
from headrace.sdk.results import Failures

Send: TypeAlias = Callable[[bytes, WireReply | None], None]


@runtime_checkable
class PartSender(Protocol):
    """A host that forwards parts; each call blocks until another part can be sent."""

    def send_part(self, invocation: Invocation, body: bytes, head: WireReply | None) -> None:
        """Send a part of the answer; only the first part may have a `head`."""
        ...


class Parts:
    """One answer. Its parts are sent if there is a `send`, else collected."""

    def __init__(self, send: Send | None) -> None:
        self._send = send
        self._head: WireReply | None = None
        self._kept: list[bytes] = []
        self._has_started = self._raw = False

    def take(self, item: Any) -> None:
        """Take the next yielded value.

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
        # RFC 9110, 15.3.5 and 15.4.5: these responses have no content.
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


def sender(host: object, invocation: CallInvocation) -> Send | None:
    """Return the function that sends the parts of the run; None if they are collected.

    Raises:
        Misuse: The invocation requires parts, and the host cannot send any.
    """
    if not invocation.live:
        return None
    if not isinstance(host, PartSender):
        raise Misuse("this host sends no answers in parts")
    part_sender = host
    return lambda body, head: part_sender.send_part(invocation, body, head)


async def answer_in_parts(
    prepared: Prepared,
    recorder: Recorder,
    yielded: Any,
    event: Event[Any] | None,
    send: Send | None,
) -> bytes:
    """Iterate to the end; return the joined answer, empty if the parts were sent.

    Raises:
        Misuse: A yielded value cannot be a part of an answer.
    """
    parts = Parts(send)

    def take(item: Any) -> None:
        # The generator may have forked since its last value; the child must not send on the
        # parent's channel.
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
