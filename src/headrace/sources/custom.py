"""Runs the author's own trigger, turn by turn, and appends what it says.

In: a generator wrapped as a function (`sdk/custom`), run where functions run. Out: its events, in
one change with the checkpoint from which it continues: a turn that is lost leaves no trace
and is taken again. A generator that fails is started again after a pause that grows.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from headrace.environment.clock import Clock
from headrace.environment.randomness import Entropy
from headrace.environment.wait_until import wait_until
from headrace.model.errors import Fenced, HeadraceError, Unavailable
from headrace.model.event import Event
from headrace.model.invocation import CallInvocation
from headrace.model.outcome import Cause, Outcome
from headrace.model.policy import MAX_KEY_BYTES
from headrace.model.record import encode_events
from headrace.model.triggers.files import Custom
from headrace.sources.base import SourceAppender

UNAVAILABLE_PAUSE_S: Final = 0.5


class TriggerFailed(HeadraceError):
    """The author's generator raised, crashed or overran its time; it is started again."""

    code = "trigger-failed"


class Said(msgspec.Struct):
    """One event, as the instance hands it over."""

    value: str
    key: str | None = None
    id: str | None = None
    headers: dict[str, str] | None = None
    time: int | None = None


class TurnResult(msgspec.Struct):
    """The result of one turn."""

    events: list[Said]
    checkpoint: Any = None
    ended: bool = False


class CustomSource:
    """The source of one `@app.source`."""

    def __init__(
        self,
        trigger: Custom,
        invoke: Callable[[CallInvocation], Awaitable[Outcome]],
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self._trigger = trigger
        self._invoke = invoke
        self._clock = clock
        self._entropy = entropy

    async def run(self, appender: SourceAppender) -> None:
        """Take turns for ever.

        Raises:
            TriggerFailed: The author's code did; nothing of that turn is kept.
        """
        while True:
            try:
                await self._turns(appender)
            except Fenced:
                # Another node has taken this turn; go on from what it remembered.
                await self._pause(self._trigger.every)

    async def _turns(self, appender: SourceAppender) -> None:
        row = await appender.checkpoint()
        while True:
            answer = await self._turn(row)
            after = msgspec.json.encode(answer.checkpoint)
            # A turn without events or progress costs no commit; JSON's null is the checkpoint of
            # one that has none.
            if answer.events or after != (row or b"null"):
                row = after
                await appender.emit(
                    [_event(said, appender.stream) for said in answer.events], checkpoint=row
                )
            appender.works()
            # A turn that has reached its limit of events is followed by the next at once: there
            # may be more.
            if answer.ended or not answer.events:
                await self._pause(self._trigger.every)

    async def _turn(self, row: bytes | None) -> TurnResult:
        trigger = self._trigger
        # The checkpoint stays undecoded: it is the author's, and the node has no use for it.
        payload = msgspec.json.encode(
            {
                "checkpoint": msgspec.Raw(row or b"null"),
                "events": trigger.turn_events,
                "seconds": trigger.turn_time,
            }
        )
        whole = (await self._outcome(payload)).whole
        if type(whole) is Cause:
            reason = f"{whole.kind}: {whole.message}\n{whole.traceback}"
            raise TriggerFailed(f"`{trigger.function}` failed: {reason}".rstrip())
        answer = msgspec.json.decode(whole.result or b"null", type=TurnResult)
        for said in answer.events:
            # Refused before the append: there the error would not name the author's code, and
            # would come back for ever.
            for what, text in ("key", said.key), ("id", said.id):
                if text is not None and len(text) > MAX_KEY_BYTES:
                    raise TriggerFailed(
                        f"`{trigger.function}` emits a {what} of {len(text):,} characters, which "
                        f"begins with `{text[:20]}`; use at most {MAX_KEY_BYTES:,}"
                    )
        return answer

    async def _outcome(self, payload: bytes) -> Outcome:
        while True:
            try:
                return await self._invoke(self._invocation(payload))
            except Unavailable:
                await self._clock.sleep(UNAVAILABLE_PAUSE_S)

    def _invocation(self, payload: bytes) -> CallInvocation:
        now = self._clock.now()
        name = self._entropy.token(8)
        body = encode_events([Event(payload, time=now, id=name)])
        return CallInvocation(
            self._trigger.function,
            timeout=self._trigger.timeout,
            token=self._entropy.integer(62) + 1,
            key=f"{self._trigger.function}:turn/{name}",
            now=now,
            seed=self._entropy.integer(62),
            event=body,
        )

    async def _pause(self, seconds: float) -> None:
        await wait_until(self._clock, self._clock.now() + round(seconds * 1_000_000))


def _event(said: Said, stream: str) -> Event:
    return Event(
        base64.b64decode(said.value), said.key, said.time, said.id, said.headers, None, stream
    )
