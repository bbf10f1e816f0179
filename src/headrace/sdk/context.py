"""Context of a handler: its names, its deadline, and what it may do.

Everything a handler does here is only noted; it lands when the invocation is committed, or not at
all. The noting is a `RunRecorder`'s work: the executor's in an instance, a small one in a unit test.
"""

from __future__ import annotations

import logging
import random  # noqa: TID251  # seeded by the invocation, so that a run can be repeated
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar, overload

from headrace.model.due_time import Moment, queue_headers
from headrace.model.durations import Duration, seconds_in
from headrace.model.errors import Misuse
from headrace.model.invocation import CallInvocation, Invocation
from headrace.model.policy import MAX_EXTENDED_S, MAX_VISIBILITY
from headrace.sdk.consumer import Consumer
from headrace.sdk.event import SAME_KEY, Event, SameKey
from headrace.sdk.queue import Queue
from headrace.sdk.state import State, StateAccess
from headrace.sdk.store import OWN_STORE, Store
from headrace.sdk.stream import Stream

T = TypeVar("T")
V = TypeVar("V")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class RunRecorder(Protocol):
    """Notes what a handler does. One per invocation."""

    def ledger(self, store: Store[Any]) -> StateAccess:
        """The storage of a store, as handlers read and write it."""
        ...

    def publish(
        self,
        stream: Stream[Any] | str,
        value: Any,
        key: str | SameKey | None,
        headers: Mapping[str, str] | None,
        time: datetime | float | None,
        id: str | None,
        type: str | None,
    ) -> object:
        """Note an output, checked."""
        ...

    def publish_later(
        self,
        stream: Stream[Any] | str,
        value: Any,
        key: str | SameKey | None,
        headers: Mapping[str, str],
        time: datetime | float | None,
        id: str | None,
        type: str | None,
    ) -> object:
        """Note a queue's message with a delay or a priority, which its headers say, checked."""
        ...

    def cancel(self, queue: Stream[Any] | str, id: str) -> None:
        """Note that a message that waits for its time is not to be delivered, checked."""
        ...

    def done(self, event: Event[Any]) -> None:
        """Note that the event needs nothing more."""
        ...

    def fail(self, event: Event[Any], reason: str) -> None:
        """Note that the event failed, and forget what was done for it."""
        ...

    def extend(self, seconds: float) -> None:
        """Let the run take `seconds` from now."""
        ...

    def secret(self, name: str) -> str:
        """The value of a secret, asked for by the function that runs."""
        ...

    def consumer(self) -> Consumer[Any]:
        """Consumer of a run that was started by a lag: it fetches and commits."""
        ...

    def working_on(self) -> Event[Any] | None:
        """The event at hand, or None outside an iteration."""
        ...


class Context:
    """One invocation, from the handler's side. Not to be kept after the handler returns.

    Attributes:
        function: The full name, `app.function`.
        app: The app's name.
        code: The hash of the code that runs.
        attempt: From 1.
        instance: The name of the process that runs it, or "".
    """

    __slots__ = (
        "_desk",
        "_ends",
        "_invocation",
        "_latest",
        "_logger",
        "_monotonic",
        "_random",
        "_state",
        "_stores",
        "code",
        "instance",
    )

    def __init__(
        self,
        invocation: Invocation,
        desk: RunRecorder,
        began: float,
        monotonic: Callable[[], float],
        code: str = "",
        instance: str = "",
    ) -> None:
        self._invocation = invocation
        self._desk = desk
        self._ends = began + invocation.timeout
        self._latest = began + MAX_EXTENDED_S
        self._monotonic = monotonic
        self._logger: logging.LoggerAdapter[logging.Logger] | None = None
        self._random: random.Random | None = None
        self.code = code
        self.instance = instance
        self._state: State[Any] | None = None
        self._stores: dict[Store[Any], State[Any]] | None = None

    @property
    def state(self) -> State[Any]:
        """The function's own store, of values of any type: a mapping that no other function reads."""
        if self._state is None:
            self._state = State(self._desk.ledger(OWN_STORE), OWN_STORE)
        return self._state

    def store(self, store: Store[V]) -> State[V]:
        """Open a store of the app: a mapping that all functions which open it share.

        Args:
            store: As `App.store` returned it.

        Raises:
            Misuse: It is not a store, or another app's.
        """
        if not isinstance(store, Store):
            raise Misuse(
                f"`context.store({store!r:.80})`: that is not a store; declare one with "
                '`totals = app.store("totals", int)` and write `context.store(totals)`'
            )
        if self._stores is None:
            self._stores = {}
        found = self._stores.get(store)
        if found is None:
            found = self._stores[store] = State(self._desk.ledger(store), store)
        return found

    def _consumer(self) -> Consumer[Any]:
        """Return the consumer of a run that a `Lag` trigger starts, for a handler that takes one.

        Raises:
            Misuse: Something else started this run.
        """
        return self._desk.consumer()

    @property
    def function(self) -> str:
        """The full name, `app.function`."""
        return self._invocation.function

    @property
    def app(self) -> str:
        """The app's name."""
        return self._invocation.function.partition(".")[0]

    @property
    def attempt(self) -> int:
        """Number of this attempt at these events, from 1."""
        return self._invocation.attempt

    @property
    def traceparent(self) -> str:
        """The W3C `traceparent` of this invocation, or ""."""
        return self._invocation.trace

    @property
    def trace_id(self) -> str:
        """The trace's 32 hexadecimal digits, or ""."""
        parts = self._invocation.trace.split("-")
        return parts[1] if len(parts) == 4 else ""

    @property
    def parent_id(self) -> str:
        """The parent span's 16 hexadecimal digits, or ""."""
        parts = self._invocation.trace.split("-")
        return parts[2] if len(parts) == 4 else ""

    @property
    def idempotency_key(self) -> str:
        """A name for what is done now, the same at every attempt: hand it to outside services.

        Inside a loop over the batch (and in a handler of single events) it names the event at
        hand, whichever batch it comes in; outside it names these events together.
        """
        event = self._desk.working_on()
        if event is None or type(self._invocation) is CallInvocation:
            return self._invocation.key
        return f"{self._invocation.function}/{event.position}"

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose lines are tied to this invocation."""
        if self._logger is None:
            self._logger = logging.LoggerAdapter(
                logging.getLogger(f"headrace.function.{self.function}"),
                {
                    "function": self.function,
                    "invocation": self._invocation.key,
                    "attempt": self.attempt,
                    "trace": self.traceparent,
                },
            )
        return self._logger

    @property
    def random(self) -> random.Random:
        """Randomness that is the same when the invocation is replayed."""
        if self._random is None:
            self._random = random.Random(self._invocation.seed)  # not for secrets
        return self._random

    def secret(self, name: str) -> str:
        """The value of a secret that the function or its app declares with `secrets=`.

        Ask where it is needed, and keep it nowhere: a file that has changed is read again within a
        second. The value is blotted out of logs and errors, and of nothing that the handler
        publishes, stores or answers.

        Raises:
            Refused: Neither declares it.
            Misuse: It cannot be read now, or the run is over.
        """
        return self._desk.secret(name)

    def now(self) -> datetime:
        """Time at which the invocation was dispatched, in UTC; the same when it is replayed."""
        return _EPOCH + timedelta(microseconds=self._invocation.now)

    def remaining(self) -> float:
        """Seconds left before the invocation is ended; never below 0."""
        return max(0.0, self._ends - self._monotonic())

    def extend(self, seconds: Duration) -> None:
        """Take `seconds` (or a text such as `"5m"`) from now, where that is later than the timeout; again as often as needed.

        No run lasts longer for it than 12 hours in all; `remaining()` returns what it got.

        Raises:
            Misuse: `seconds` is not a time, or longer than 12 hours.
        """
        more_s = seconds_in(seconds, "`context.extend(...)`", low=0.001, high=MAX_VISIBILITY)
        now = self._monotonic()
        ends = min(now + more_s, self._latest)
        if ends > self._ends:
            self._desk.extend(ends - now)
            self._ends = ends

    @overload
    def publish(
        self,
        stream: Queue[T] | str,
        value: T,
        *,
        key: str | SameKey | None = ...,
        headers: Mapping[str, str] | None = ...,
        time: datetime | float | None = ...,
        id: str | None = ...,
        type: str | None = ...,
        delay: Duration | None = ...,
        at: Moment | None = ...,
        priority: int | None = ...,
    ) -> None: ...

    @overload
    def publish(
        self,
        stream: Stream[T],
        value: T,
        *,
        key: str | SameKey | None = ...,
        headers: Mapping[str, str] | None = ...,
        time: datetime | float | None = ...,
        id: str | None = ...,
        type: str | None = ...,
    ) -> None: ...

    def publish(
        self,
        stream: Stream[T] | str,
        value: T,
        *,
        key: str | SameKey | None = SAME_KEY,
        headers: Mapping[str, str] | None = None,
        time: datetime | float | None = None,
        id: str | None = None,
        type: str | None = None,
        delay: Duration | None = None,
        at: Moment | None = None,
        priority: int | None = None,
    ) -> None:
        """Publish `value` when the invocation is committed.

        Args:
            stream: A stream of this app, or another app's that the function says it publishes to.
            value: The payload, of the stream's type.
            key: Events of one key stay in order. Left out, it is the key of the event at hand: of
                the one that a loop over the batch has reached, or that the handler was given. None
                says that there is no key, and keeps to the input's partition if it can.
            headers: Short strings besides the payload.
            time: When it happened: an aware datetime, or seconds since the epoch.
            id: The mark by which a repeated publish is dropped, and by which `cancel` takes back
                what waits.
            delay: Of a queue's message: the time before it may be received, from the commit on;
                up to a year.
            at: Of a queue's message: when it may be received, in place of `delay`: an aware
                datetime, seconds since the epoch, or RFC 3339.
            priority: Of a queue's message: whole seconds by which it goes ahead of others.
            type: What it says, as CloudEvents' `type`, such as `"shop.order.paid"`.

        Raises:
            Unknown: This app knows no such stream.
            Refused: The function did not say that it publishes there.
            Invalid: The value is not of the stream's type.
            TooLarge: The event is larger than the stream allows.
            Misuse: The run is over, this is a process that the handler forked, or what is to wait
                is an event of a stream.
        """
        if delay is None and at is None and priority is None:
            self._desk.publish(stream, value, key, headers, time, id, type)
            return
        later = {**(headers or {}), **queue_headers(delay, at, priority)}
        self._desk.publish_later(stream, value, key, later, time, id, type)

    def cancel(self, queue: Queue[Any] | str, id: str) -> None:
        """Take back the message of this id, if it still waits for its time when the run is committed.

        What was delivered already stays. The id may then be used again: `cancel`, then `publish` with
        another `delay`, puts a message off.

        Args:
            queue: A queue of this app, or another app's that the function says it publishes to.
            id: As it was given to `publish`.

        Raises:
            Unknown: This app knows no such queue.
            Refused: The function did not say that it publishes there.
            Invalid: It cannot be an id.
            Misuse: It is a stream, the run is over, or this is a process that the handler forked.
        """
        self._desk.cancel(queue, id)

    def done(self, event: Event[Any]) -> None:
        """Say that `event` needs nothing more, even if the handler raises later.

        That holds where every effect was made in the body of a loop over the batch; otherwise
        it is unknown which effects are this event's, and a handler that raises keeps nothing.
        """
        self._desk.done(event)

    def fail(self, event: Event[Any], reason: str = "") -> None:
        """Say that `event` failed: what was done for it is dropped, the others go on.

        What was done for it is what was done in the body of the loop while it was at hand. Where
        effects were made outside such a loop, or by other threads and tasks, the handler is run
        again with the other events alone.
        """
        self._desk.fail(event, reason)
