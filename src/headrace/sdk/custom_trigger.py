"""Custom triggers: the author's generator, made a function that the host runs again and again.

In: a generator that is given its last checkpoint and yields `Emit`s. Out: a handler that runs it for
a bounded while and answers with what it said, as JSON the host appends together with the
checkpoint. The generator runs where functions run, in an isolated instance, and may hold its
connections in module variables.
"""

from __future__ import annotations

import base64
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from headrace.model.codec import Coder
from headrace.model.durations import Duration, seconds_in
from headrace.model.errors import Invalid, Misuse
from headrace.model.function import FunctionSpec
from headrace.model.policy import MAX_BATCH
from headrace.model.triggers.base import CallTrigger
from headrace.model.triggers.files import Custom
from headrace.sdk.declaration_checks import Declared
from headrace.sdk.event import Event
from headrace.sdk.handler_signature import shape_of
from headrace.sdk.source_location import of_code
from headrace.sdk.stream import check_name

MAX_ANSWER_BYTES: Final = 1 << 20
"""What one run said is handed over once it is this large."""
LINGER_S: Final = 0.05
"""How long what was said may wait for more."""
_GENERATOR, _ASYNC_GENERATOR = 0x20, 0x200

_json = Coder("json")
Emitter = Callable[[Any], Iterator["Emit"] | AsyncIterator["Emit"]]


class Emit:
    """An event that a custom trigger saw.

    Attributes:
        value: The payload, JSON.
        key: What keeps events in order.
        id: The mark by which a repetition is dropped.
        checkpoint: What the generator is given when it is next started, JSON; None: as before.
        headers: Short strings besides the payload.
        time: When it happened: an aware datetime or seconds since the epoch.
    """

    __slots__ = ("checkpoint", "headers", "id", "key", "time", "value")

    def __init__(
        self,
        value: Any,
        *,
        key: str | None = None,
        id: str | None = None,
        checkpoint: Any = None,
        headers: Mapping[str, str] | None = None,
        time: datetime | float | None = None,
    ) -> None:
        self.value = value
        self.key = key
        self.id = id
        self.checkpoint = checkpoint
        self.headers = headers
        self.time = time

    def __repr__(self) -> str:
        return f"Emit({self.value!r}, key={self.key!r}, checkpoint={self.checkpoint!r})"


class Turn(msgspec.Struct):
    """Request of the host for one run: where to go on, and how much is enough."""

    checkpoint: Any = None
    events: int = 1_000
    seconds: float = 5.0


def custom_trigger(
    app: str,
    emitter: Emitter,
    *,
    every: Duration,
    turn_events: int,
    turn_time: Duration,
    timeout: Duration,
    place: str,
) -> tuple[Declared, Custom]:
    """The function that runs `emitter`, and the trigger that stands for it.

    Raises:
        Misuse: It is not a generator of one parameter, or a setting is out of range.
    """
    full = f"{app}.{check_name(getattr(emitter, '__name__', ''), 'a source', place)}"
    code = getattr(emitter, "__code__", None)
    flags = 0 if code is None else code.co_flags
    if code is None or not flags & (_GENERATOR | _ASYNC_GENERATOR) or code.co_argcount != 1:
        raise Misuse(
            f"`{full}` ({place}): a source is a generator that is given its last checkpoint; "
            f"write `def {full.rpartition('.')[2]}(checkpoint): ... yield Emit(...)`"
        )
    where = f"`{full}` ({of_code(code)})"
    period = seconds_in(every, f"{where}: `every`", low=0.05, high=86_400)
    if not 1 <= turn_events <= MAX_BATCH:
        raise Misuse(
            f"{where}: `turn_events={turn_events}` is out of range; use 1 to {MAX_BATCH:,}"
        )
    turn = seconds_in(turn_time, f"{where}: `turn_time`", low=0.05, high=3_600)
    limit = seconds_in(timeout, f"{where}: `timeout`", low=0.05, high=3_600)
    if turn >= limit:
        raise Misuse(
            f"{where}: `turn_time={turn_time!r}, timeout={timeout!r}` cannot work; a run must be over "
            "before its timeout"
        )
    runner = _runner(emitter, bool(flags & _ASYNC_GENERATOR), where)
    summary = ((emitter.__doc__ or "").strip().splitlines() or [""])[0]
    shape = replace(shape_of(runner, full), place=of_code(code), summary=summary)
    spec = FunctionSpec(
        name=full,
        app=app,
        triggers=(CallTrigger(),),
        timeout=limit,
        summary=summary,
        source=of_code(code),
        breaker=None,
    )
    trigger = Custom(full, every=period, turn_events=turn_events, turn_time=turn, timeout=limit)
    return Declared(spec, runner, shape, None, {}), trigger


def _runner(emitter: Emitter, awaits: bool, where: str) -> Callable[[Any], Any]:
    """A handler that runs the generator for one turn."""
    if awaits:

        async def run_async(event: Event[Turn]) -> Any:
            said = _Said(event.value, where)
            iterator: Any = emitter(event.value.checkpoint)
            try:
                await _fill(said, iterator)
            finally:
                await iterator.aclose()
            return said.answer()

        return run_async

    def run(event: Event[Turn]) -> Any:
        said = _Said(event.value, where)
        iterator: Any = emitter(event.value.checkpoint)
        try:
            for emit in iterator:
                if said.add(emit):
                    break
            else:
                said.ended = True
        finally:
            iterator.close()
        return said.answer()

    return run


async def _fill(said: _Said, iterator: Any) -> None:
    """Take what the generator says until the turn is over; not long after it has said something."""
    import asyncio

    loop = asyncio.get_running_loop()
    scope = asyncio.timeout(said.turn.seconds)
    try:
        async with scope:
            async for emit in iterator:
                if said.is_empty:
                    end = loop.time() + LINGER_S
                    scope.reschedule(min(end, scope.when() or end))
                if said.add(emit):
                    return
            said.ended = True
    except TimeoutError:
        if not scope.expired():
            raise


class _Said:
    """Events of one run so far, as the host receives them."""

    def __init__(self, turn: Turn, where: str) -> None:
        self.turn = turn
        self.ended = False
        self._where = where
        self._end = time.monotonic() + turn.seconds  # noqa: TID251 - the instance's own time
        self._events: list[dict[str, Any]] = []
        self._size = 0
        self._checkpoint = turn.checkpoint

    @property
    def is_empty(self) -> bool:
        """Return whether nothing was said yet."""
        return not self._events

    def add(self, emit: object) -> bool:
        """Take one; whether that is enough for this turn."""
        if not isinstance(emit, Emit):
            raise Misuse(f"{self._where} yields `{emit!r}`; yield `Emit(value, checkpoint=...)`")
        try:
            value = _json.encode(emit.value)
        except Invalid as error:
            raise Invalid(f"{self._where} yields {emit!r:.200}: {error}") from error
        moment: object = emit.time.timestamp() if isinstance(emit.time, datetime) else emit.time
        if moment is not None and not (isinstance(moment, (int, float)) and abs(moment) < 1e11):
            raise Misuse(
                f"{self._where} yields an `Emit` with `time={emit.time!r}`; use an aware datetime, or "
                "seconds since the epoch"
            )
        self._events.append(
            {
                "value": base64.b64encode(value).decode(),
                "key": emit.key,
                "id": emit.id,
                "headers": dict(emit.headers) if emit.headers else None,
                "time": None if moment is None else round(moment * 1e6),
            }
        )
        self._size += len(value)
        if emit.checkpoint is not None:
            self._checkpoint = emit.checkpoint
        now = time.monotonic()  # noqa: TID251 - as above
        if len(self._events) == 1:
            self._end = min(self._end, now + LINGER_S)
        return (
            len(self._events) >= self.turn.events
            or self._size >= MAX_ANSWER_BYTES
            or now >= self._end
        )

    def answer(self) -> dict[str, Any]:
        """For the host; see `triggers/custom`."""
        return {"events": self._events, "checkpoint": self._checkpoint, "ended": self.ended}
