"""Executor: runs a handler over a batch, in an instance or `inline`.

In: an `Invocation`. Out: a `Returned` that holds only the effects of events that are done. Any exception of the
author's code becomes a `Cause`; none propagates. `run` suspends only if the handler itself is asynchronous.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from headrace.model.codec import Coder, encode_json
from headrace.model.errors import Unknown
from headrace.model.invocation import (
    BatchInvocation,
    CallInvocation,
    CoalescedInvocation,
    ConsumerInvocation,
    Invocation,
)
from headrace.model.near_names import near
from headrace.model.outcome import Cause, Returned
from headrace.model.record import Chunk
from headrace.runtime.child import fork_detection
from headrace.runtime.child.coalesced_batches import run_each
from headrace.runtime.child.consumer_session import ConsumerSession, Supply
from headrace.runtime.child.error_cause import cause_of, failed_for
from headrace.runtime.child.outcome import (
    answer_of,
    behind,
    close_key,
    collect,
    collect_error,
    poison_in,
)
from headrace.runtime.child.recorder import Misread, Recorder
from headrace.runtime.child.results import Prepared, emit, forget_cancellation, settled, take
from headrace.runtime.child.secrets import keys_of
from headrace.runtime.child.state_cache import StateCache
from headrace.runtime.child.state_session import StateHost
from headrace.runtime.child.streamed_answer import answer_in_parts, sender
from headrace.sdk.app import App
from headrace.sdk.batch import Batch
from headrace.sdk.context import Context
from headrace.sdk.error_notes import note
from headrace.sdk.event import Event, open_chunk
from headrace.sdk.request import Reply
from headrace.sdk.results import Failures
from headrace.sdk.row_changes import ChangeReader

MAX_RERUNS: Final = 16
PLAIN: Final = frozenset({dict, str, int, float, bool, type(None)})
"""Types that are encoded as an answer without conversion: most answers."""


def _never() -> bool:
    """Return False: the runs of an instance are ended by killing the process."""
    return False


class Executor:
    """One app in one instance. Used by one task at a time (inline: one loop).

    Args:
        app: The loaded app.
        host: Answers the questions of a running function.
        partitions: How many partitions each known stream has; looked up at every publish, so a
            live mapping is fine. Streams of the app need not be in it.
        instance: This instance's name.
        version: The hash of the code.
        monotonic: Seconds that never go backwards, for `remaining`.
        is_ended: Return whether the current task is being cancelled by the platform, not by the
            handler.

    Attributes:
        on_enter: Called with every invocation of a group of coalesced batches before it runs.
    """

    def __init__(
        self,
        app: App,
        host: StateHost,
        *,
        partitions: Mapping[str, int] | None = None,
        instance: str = "",
        version: str = "",
        monotonic: Callable[[], float] = time.monotonic,
        is_ended: Callable[[], bool] = _never,
    ) -> None:
        self.app = app
        self._host = host
        keys = keys_of(host)
        self._blot = keys.blot
        app.lend(lambda name: keys.secret(name, ""))
        self.partitions: Mapping[str, int] = {} if partitions is None else partitions
        self.instance = instance
        self._version = version
        self._monotonic = monotonic
        self._is_ended = is_ended
        self._cache = StateCache()
        self.on_enter: Callable[[Invocation], None] = _ignore
        self._prepared = {name: Prepared(each) for name, each in app.functions.items()}
        self._untyped = Coder("json").decode
        self._called: set[Callable[[], Any]] = set()
        self._started: set[str] = set()
        self._forks = fork_detection.count

    # -- hooks ------------------------------------------------------------------------------

    async def start(self, function: str) -> None:
        """Call the function's `init` hooks, each once; an exception of a hook propagates."""
        # Inline, one app object serves several instances in turn, and one that was killed has
        # closed nothing.
        await self.app.close_left_open()
        for hook in self.app.init_hooks(function):
            if hook not in self._called:
                try:
                    await _call(hook)
                except BaseException as error:
                    note(error, f"in the `init` hook `{getattr(hook, '__name__', hook)}`")
                    raise
                self._called.add(hook)
        self._started.add(function)

    async def suspend(self) -> None:
        """Call the `on_suspend` hooks, last declared first."""
        await _call_all(self.app.hooks["on_suspend"][::-1])

    async def resume(self) -> None:
        """Call the `on_resume` hooks."""
        await _call_all(self.app.hooks["on_resume"])

    async def stop(self) -> None:
        """Call the `on_stop` hooks, last declared first; then close what was opened."""
        await _call_all([*self.app.hooks["on_stop"][::-1], self.app.close_resources])

    def hooks_await(self, function: str) -> bool:
        """Return whether a hook, or closing a resource that the function opened, may need an event loop."""
        return self.app.awaits or (bool(self.app.resources) and self.is_async(function))

    def is_async(self, function: str) -> bool:
        """Return whether `run` may suspend: the handler is an `async def`."""
        return self._named(function).awaits

    def _named(self, function: str) -> Prepared:
        found = self._prepared.get(function)
        if found is None:
            raise Unknown(
                f"app `{self.app.name}` has no function `{function}`{near(function, self._prepared)}"
            )
        return found

    # -- running ----------------------------------------------------------------------------

    async def run(self, invocation: Invocation) -> Returned:
        """Run the handler over the invocation's events.

        Raises:
            Unknown: The app has no such function.
        """
        prepared = self._named(invocation.function)
        self._forks = fork_detection.count
        # The run before was refused at its commit, because it relied on a version that this cache
        # remembered.
        if invocation.fresh:
            self._cache.clear()
        try:
            if invocation.function not in self._started:
                await self.start(invocation.function)
            work: Coroutine[Any, Any, Returned]
            if type(invocation) is CallInvocation:
                events = open_chunk(invocation.chunk, 0, prepared.call_decode)
                work = self._run_call(invocation, prepared, events, self._monotonic())
            elif type(invocation) is CoalescedInvocation:
                work = self._run_coalesced(invocation, prepared)
            elif type(invocation) is ConsumerInvocation:
                work = self._run_consumer(invocation, prepared, self._monotonic())
            else:
                work = self._run_events(invocation, prepared, self._open(invocation, prepared))
        except BaseException as error:  # noqa: BLE001  # the author's init code may raise anything
            return Returned(error=cause_of(error, self._blot))
        return await work

    def _run_coalesced(
        self, invocation: CoalescedInvocation, prepared: Prepared
    ) -> Coroutine[Any, Any, Returned]:
        batches = [self._open_one(chunk, 0, prepared) for chunk in invocation.chunks]

        def alone(one: BatchInvocation, events: list[Event[Any]]) -> Coroutine[Any, Any, Returned]:
            self.on_enter(one)
            return self._run_events(one, prepared, events)

        return run_each(invocation, batches, alone, self._monotonic)

    def _open(self, invocation: BatchInvocation, prepared: Prepared) -> list[Event[Any]]:
        if len(invocation.chunks) == 1:
            return self._open_one(invocation.chunks[0], 0, prepared)
        events: list[Event[Any]] = []
        for chunk in invocation.chunks:
            events += self._open_one(chunk, len(events), prepared)
        return events

    def _open_one(self, chunk: Chunk, base: int, prepared: Prepared) -> list[Event[Any]]:
        decode = prepared.decoders.get(chunk.stream, self._untyped)
        events = open_chunk(chunk, base, decode)
        if isinstance(decode, ChangeReader):
            decode.adopt(events)
        return events

    def _start_recording(
        self,
        invocation: Invocation,
        prepared: Prepared,
        events: list[Event[Any]],
        began: float,
        at_once: bool = True,
    ) -> tuple[Recorder, Context]:
        recorder = Recorder(
            invocation,
            events,
            self.app,
            self._cache,
            self._host,
            self.partitions,
            prepared.may_publish,
            at_once,
        )
        return recorder, Context(
            invocation, recorder, began, self._monotonic, self._version, self.instance
        )

    def _run_events(
        self, invocation: BatchInvocation, prepared: Prepared, events: list[Event[Any]]
    ) -> Coroutine[Any, Any, Returned]:
        """Return the coroutine that runs one batch, given its decoded events."""
        began = self._monotonic()
        if len(events) == 1:
            run = self._run_batch if prepared.many else self._run_single
            return run(invocation, prepared, events, began, at_once=True)
        return self._run_many(invocation, prepared, events, began)

    async def _run_many(
        self,
        invocation: BatchInvocation,
        prepared: Prepared,
        events: list[Event[Any]],
        began: float,
    ) -> Returned:
        """Run many events. Their outputs are checked together, which takes a fifth of the time."""
        run = self._run_batch if prepared.many else self._run_single
        try:
            return await run(invocation, prepared, events, began, at_once=False)
        except Misread:
            # Run again with each output checked as it is published, so that the handler gets the
            # exception there. The events are decoded again, as the handler may have changed them.
            events = self._open(invocation, prepared)
            return await run(invocation, prepared, events, began, at_once=True)

    async def _run_single(
        self,
        invocation: BatchInvocation,
        prepared: Prepared,
        events: list[Event[Any]],
        began: float,
        *,
        at_once: bool,
    ) -> Returned:
        """Run event by event. A function ordered by partition stops at the first failure, others continue."""
        order = invocation.order or prepared.order
        recorder, context = self._start_recording(invocation, prepared, events, began, at_once)
        handler, output = prepared.handler, prepared.output
        closed: set[str] = set()
        untouched = -1
        index = -1
        for event in events:
            index += 1
            if closed and event.key in closed:
                recorder.drop(index, behind(event))
                continue
            recorder.at = index
            try:
                # `prepared.call`, inlined: a call costs more than some handlers.
                result = handler(event, context) if prepared.context else handler(event)
                if result is None:
                    pass
                elif type(result) not in PLAIN:
                    await take(prepared, recorder, result, event)
                elif output is not None:
                    # Most outputs: there is nothing to await, to walk over or to unwrap.
                    recorder.leave_if_forked()
                    recorder.publish(output, result, event.key)
            except BaseException as error:  # user code may raise anything
                cause = self._cause(error, prepared)
                # The author has declared the event done; to fail it now would run it twice.
                if index in recorder.finished:
                    context.logger.exception(
                        "the handler raised after `done`; the event stays done"
                    )
                    continue
                recorder.drop(index, cause)
            # A handler that forks and returns in the child would otherwise send the parent's
            # result a second time.
            if fork_detection.count != self._forks:
                fork_detection.leave()
            if index in recorder.dropped:
                if order == "partition":
                    untouched = index + 1 if index + 1 < len(events) else -1
                    break
                if order == "key" and event.key is not None:
                    closed.add(event.key)
        recorder.close()
        if recorder.dropped:
            recorder.check()
        return collect(recorder, untouched)

    async def _run_batch(
        self,
        invocation: BatchInvocation,
        prepared: Prepared,
        events: list[Event[Any]],
        began: float,
        *,
        at_once: bool,
    ) -> Returned:
        """Run all events at once. Events that cannot be decoded are set aside, and the others run again."""
        order = invocation.order or prepared.order
        aside: dict[int, Cause] = {}
        end = len(events)
        cause = None
        for _ in range(MAX_RERUNS):
            seen = events
            if aside or end < len(events):
                seen = [event for event in events[:end] if event._index not in aside]
            untouched = -1
            if end < len(events):
                # `end` itself failed; the handler never saw the events after it.
                untouched = end + 1 if end + 1 < len(events) else -1
            recorder, context = self._start_recording(invocation, prepared, events, began, at_once)
            # Only events that the handler's own thread and task iterate can be attributed to one
            # event.
            recorder.begin_walk(_own_task() if prepared.awaits else None)
            if seen:
                try:
                    result = prepared.call(Batch(seen, recorder), context)
                    recorder.at = -1
                    if result is not None:
                        await take(prepared, recorder, result, None)
                except BaseException as error:  # noqa: BLE001  # user code may raise anything
                    cause = self._cause(error, prepared)
                    recorder.close()
                    recorder.check()
                    poison = poison_in(error, events)
                    if poison is None or recorder.finished:
                        return collect_error(recorder, cause)
                    # Decoded again, as the handler may have changed its events in place.
                    events = self._open(invocation, prepared)
                    if order == "partition":
                        end = poison
                        aside = {i: why for i, why in aside.items() if i < end} | {poison: cause}
                    else:
                        aside[poison] = cause
                        if order == "key":
                            close_key(events, poison, aside)
                    continue
            if fork_detection.count != self._forks:
                fork_detection.leave()
            recorder.close()
            if recorder.dropped:
                recorder.check()
            if recorder.dropped and not recorder.divides(lambda tag: tag not in recorder.dropped):  # noqa: B023  # called at once
                # Effects cannot be attributed to single events: run the events that did not fail
                # by themselves.
                cause = next(iter(recorder.dropped.values()))
                aside |= recorder.dropped
                events = self._open(invocation, prepared)
                continue
            for index, why in aside.items():
                recorder.drop(index, why)
            return collect(recorder, untouched)
        return Returned(error=cause)

    async def _run_call(
        self,
        invocation: CallInvocation,
        prepared: Prepared,
        events: list[Event[Any]],
        began: float,
    ) -> Returned:
        """Run a handler over one payload; return its answer."""
        recorder, context = self._start_recording(invocation, prepared, events, began)
        recorder.at = 0 if events and not prepared.many else -1
        try:
            subject = Batch(events, recorder) if prepared.many else events[0]
            event = None if prepared.many else events[0]
            result = prepared.call(subject, context)
            if prepared.generates:
                send = sender(self._host, invocation)
                answer = await answer_in_parts(prepared, recorder, result, event, send)
            elif type(result) in PLAIN:
                answer = encode_json(result)
                if prepared.output is not None and result is not None:
                    emit(prepared, recorder, result, event)
            else:
                if hasattr(result, "__await__"):
                    result = await settled(prepared, result)
                if isinstance(result, Failures):
                    return Returned(error=failed_for(result.reason, self._blot))
                answer = answer_of(result)
                if result is not None and not isinstance(result, Reply):
                    emit(prepared, recorder, result, event)
        except BaseException as error:  # noqa: BLE001  # user code may raise anything
            cause = self._cause(error, prepared)
            recorder.close()
            return Returned(error=cause)
        if fork_detection.count != self._forks:
            fork_detection.leave()
        recorder.close()
        if recorder.dropped:
            return Returned(error=next(iter(recorder.dropped.values())))
        if recorder.blank:
            return Returned(result=answer)
        return Returned(
            appends=recorder.appends(None),
            reads=recorder.reads(),
            writes=recorder.writes(None),
            result=answer,
        )

    async def _run_consumer(
        self, invocation: ConsumerInvocation, prepared: Prepared, began: float
    ) -> Returned:
        """Run a handler that fetches its events; return the effects that it has not committed itself."""
        recorder, context = self._start_recording(invocation, prepared, [], began)
        if not isinstance(self._host, Supply) or not invocation.held:
            return Returned(error=Cause("Misuse", "there is nothing to consume"))
        decode = prepared.decoders.get(invocation.held[0].stream, self._untyped)
        consumer = recorder.consumes = ConsumerSession(invocation, recorder, self._host, decode)
        try:
            result = prepared.call(Batch([], recorder), context)
            if result is not None:
                await take(prepared, recorder, result, None)
            consumer.check()
        except BaseException as error:  # noqa: BLE001  # user code may raise anything
            cause = self._cause(error, prepared)
            recorder.close()
            return Returned(error=cause)
        if fork_detection.count != self._forks:
            fork_detection.leave()
        recorder.close()
        return collect(recorder, -1)

    def _cause(self, error: BaseException, prepared: Prepared) -> Cause:
        """Return the cause for an exception of the author's code; a process that it forked ends here instead."""
        if fork_detection.count != self._forks:
            fork_detection.leave(error)
        if prepared.awaits:
            # The platform cancels the task to end the run: as a cause it would look like a failure
            # of the handler.
            if self._is_ended():
                raise error
            forget_cancellation()
        return cause_of(error, self._blot)


def _ignore(_invocation: Invocation) -> None:
    """Do nothing at the start of an invocation of a group."""


def _own_task() -> Callable[[], bool]:
    """Return a function that returns whether its caller runs in the current task."""
    from asyncio import current_task

    mine = current_task()
    return lambda: current_task() is mine


async def _call(hook: Callable[[], Any]) -> None:
    """Call a hook, plain or `async def`."""
    ends = fork_detection.guarded(hook)
    if isinstance(ends, Coroutine):
        await ends


async def _call_all(hooks: list[Callable[[], Any]]) -> None:
    """Call every hook, even if one raises; the first error comes out at the end."""
    first: BaseException | None = None
    for hook in hooks:
        try:
            await _call(hook)
        except BaseException as error:  # noqa: BLE001  # the others must still be called
            first = first or error
    if first is not None:
        raise first
