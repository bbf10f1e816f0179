"""Results of a handler in every form: awaited, iterated, published, or failures.

In: a prepared function, and its handler's return value. Out: notes in the recorder. A value that cannot be
published raises here, inside the run, and so counts as the handler's own failure.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, get_origin

from headrace.model.codec import Coder, codec_for, unbound
from headrace.model.due_time import queue_headers
from headrace.model.errors import Misuse
from headrace.runtime.child.error_cause import failed_for
from headrace.runtime.child.recorder import Recorder
from headrace.sdk.context import Context
from headrace.sdk.declaration_checks import Declared
from headrace.sdk.event import Event, SameKey
from headrace.sdk.request import Request
from headrace.sdk.results import Failures, Output


def adapted(declared: Declared) -> Callable[..., Any]:
    """Return the handler as it is called: with the event or batch, and the context if it takes more."""
    shape, handler = declared.shape, declared.handler
    if shape.parameters in {("event",), ("event", "context")}:
        return handler

    def call(subject: Any, context: Context) -> Any:
        given: list[Any] = []
        for kind in shape.parameters:
            match kind:
                case "event":
                    given.append(subject)
                case "context":
                    given.append(context)
                case "request":
                    given.append(Request.of(subject, shape.request))
                case _:
                    given.append(context._consumer())
        return handler(*given)

    return call


class Prepared:
    """A function, prepared for calls: values that would otherwise be looked up at every invocation."""

    __slots__ = (
        "awaits",
        "call_decode",
        "context",
        "decoders",
        "generates",
        "handler",
        "many",
        "may_publish",
        "name",
        "order",
        "output",
        "splits",
        "warned",
    )

    def __init__(self, declared: Declared) -> None:
        shape, spec = declared.shape, declared.spec
        self.name = spec.name
        self.handler = adapted(declared)
        self.many = shape.batch
        self.context = shape.parameters != ("event",)
        self.awaits = shape.awaits
        self.generates = shape.generates
        self.order = spec.order
        self.output = declared.output
        # A returned list is several outputs, unless the output's values are lists themselves.
        held = declared.output.coder.type if declared.output is not None else None
        held = unbound(held)
        self.splits = (get_origin(held) or held) is not list
        self.may_publish = frozenset(spec.publishes) | {spec.output or ""}
        self.decoders = declared.decoders
        self.call_decode = _call_decoder(declared)
        self.warned = False

    def call(self, subject: Any, context: Context) -> Any:
        """Return the result of the handler, not yet awaited or iterated."""
        return self.handler(subject, context) if self.context else self.handler(subject)


async def take(
    prepared: Prepared, recorder: Recorder, result: Any, event: Event[Any] | None
) -> None:
    """Await, iterate or publish a result, as the handler's form requires."""
    if prepared.generates:
        if prepared.awaits:
            async for item in result:
                emit_one(prepared, recorder, item, event)
            await deliver_cancellation()
        else:
            for item in result:
                emit_one(prepared, recorder, item, event)
        return
    result = await settled(prepared, result)
    if result is not None:
        # The handler's iteration has ended: what it returns belongs to no single event.
        if event is None:
            recorder.at = -1
        emit(prepared, recorder, result, event)


async def settled(prepared: Prepared, result: Any) -> Any:
    """Return the handler's result, awaited if necessary."""
    if hasattr(result, "__await__"):
        if not prepared.awaits:
            # A coroutine that is dropped would print a warning of its own next to this error.
            if hasattr(result, "close"):
                result.close()
            raise Misuse(
                "the handler returned something to be awaited, but is not an `async def`; "
                "a decorator may hide it: use `functools.wraps` there"
            )
        result = await result
        await deliver_cancellation()
    return result


async def deliver_cancellation() -> None:
    """Deliver the cancellation to a handler that cancelled its own task and awaited nothing since."""
    from asyncio import current_task, sleep

    try:
        task = current_task()
    except RuntimeError:
        # In a process that the handler forked there is no loop.
        return
    if task is not None and task.cancelling():
        # asyncio delivers a cancellation at the next suspension; without one it would hit the
        # platform's code.
        await sleep(0)


def forget_cancellation() -> None:
    """Clear the cancellation of the handler's own task, so that the next step is not cancelled."""
    from asyncio import current_task

    task = current_task()
    while task is not None and task.cancelling():
        task.uncancel()


def emit(prepared: Prepared, recorder: Recorder, result: Any, event: Event[Any] | None) -> None:
    """Publish a returned value, or note returned failures."""
    if isinstance(result, Failures):
        _drop(recorder, result)
        return
    if prepared.output is None:
        if result is not None and not prepared.warned:
            # Once per instance: such a handler returns a value at every event.
            prepared.warned = True
            logging.getLogger(f"headrace.function.{prepared.name}").warning(
                "the handler returned a value of type `%s` that goes nowhere: add `output=<stream>`, "
                "or return nothing (logged once)",
                type(result).__name__,
            )
        return
    if type(result) is list and prepared.splits:
        for item in result:
            emit_one(prepared, recorder, item, event)
    else:
        emit_one(prepared, recorder, result, event)


def emit_one(prepared: Prepared, recorder: Recorder, item: Any, event: Event[Any] | None) -> None:
    """Publish one value, or note the failures it names."""
    recorder.leave_if_forked()
    output = prepared.output
    if isinstance(item, Failures):
        _drop(recorder, item)
        return
    if output is None:
        return
    key = event.key if event is not None else None
    if isinstance(item, Output):
        if not isinstance(item.key, SameKey):
            key = item.key
        if item.delay is None and item.at is None and item.priority is None:
            recorder.publish(output, item.value, key, item.headers, item.time, item.id, item.type)
            return
        later = {**(item.headers or {}), **queue_headers(item.delay, item.at, item.priority)}
        recorder.publish_later(output, item.value, key, later, item.time, item.id, item.type)
    else:
        recorder.publish(output, item, key)


def _drop(recorder: Recorder, failures: Failures) -> None:
    why = failed_for(failures.reason, recorder.blot)
    places: dict[int, list[int]] = {}
    if any(not isinstance(failed, Event) for failed in failures.events):
        for index, event in enumerate(recorder.events):
            places.setdefault(event.offset, []).append(index)
    for failed in failures.events:
        if isinstance(failed, Event):
            recorder.drop(recorder.index_of(failed), why)
            continue
        found = places.get(failed, [])
        # Offsets are unique within a partition only, and a batch may hold several partitions.
        if len(found) != 1:
            what = "is in no" if not found else "is in more than one"
            raise Misuse(
                f"`Failures` names offset {failed!r}, which {what} partition of this batch; "
                "hand over the events themselves"
            )
        recorder.drop(found[0], why)


def bare(item: Any) -> Any:
    """Return the value of an output."""
    return item.value if isinstance(item, Output) else item


def _call_decoder(declared: Declared) -> Callable[[bytes], Any]:
    """Choose the decoder of a call's payload: that of the handler, or of its first stream.

    A caller of a function that reads row changes passes the change itself.
    """
    if declared.shape.value is not Any or declared.spec.change_streams:
        return Coder(codec_for(declared.shape.value), declared.shape.value).decode
    return next(iter(declared.decoders.values()), Coder("json").decode)
