"""Call a handler by hand, as the ordinary function it is: contexts, events and batches for unit tests.

In: plain values. Out: what a handler is given in an instance, with the same checks. What it publishes
and stores is noted on the context, for the test to look at; nothing is committed anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from itertools import count
from typing import Any, TypeAlias

import msgspec

from headrace.model.codec import Coder, encode_json, encode_state
from headrace.model.durations import Duration, seconds_in
from headrace.model.errors import Misuse
from headrace.model.function import StreamSpec
from headrace.model.invocation import BatchInvocation, Invocation
from headrace.model.outcome import Range, Scanned
from headrace.model.policy import MAX_KEPT_S
from headrace.model.record import Chunk
from headrace.runtime.child.recorder import Lane, OutputStream, Recorder, is_cancelled
from headrace.runtime.child.state_cache import StateCache
from headrace.runtime.host_services import check_granted
from headrace.sdk.app import App
from headrace.sdk.batch import Batch, Cursor
from headrace.sdk.context import Context
from headrace.sdk.event import Event, Origin
from headrace.sdk.store import OWN_STORE, Store
from headrace.sdk.stream import Stream

Stores: TypeAlias = Mapping[Store[Any], Mapping[str, Any]]

_START = datetime(2026, 1, 1, tzinfo=UTC)
_indices = count()


class Published(msgspec.Struct, frozen=True):
    """An output a handler published.

    Attributes:
        stream: The stream's name.
        value: The value, as a reader of the stream will see it.
        key: The key, or None.
        headers: Its headers.
        partition: Where it would go.
        id: The producer's id, or None.
    """

    stream: str
    value: Any
    key: str | None = None
    headers: dict[str, str] = {}
    partition: int = 0
    id: str | None = None


class _Rows:
    """The stores a test begins with; answers as the host would."""

    def __init__(self, stores: Stores, secrets: Mapping[str, str], app: App | None) -> None:
        self._raw = {
            store.name: {key: encode_state(value) for key, value in values.items()}
            for store, values in stores.items()
        }
        self._secrets = secrets
        self._app = app

    def secret(self, name: str, function: str) -> str:
        if self._app is not None:
            for spec in self._app.spec().functions:
                if spec.name == function:
                    check_granted(spec, name)
        if name not in self._secrets:
            raise Misuse(
                f"the secret `{name}` has no value here; write `context(secrets={{{name!r}: ...}})`"
            )
        return self._secrets[name]

    def blot(self, text: str) -> str:
        """Return the text unchanged: tests may see the secrets that they passed."""
        return text

    def read_state(
        self, function: str, store: str, keys: list[str]
    ) -> list[tuple[int, bytes | None]]:
        rows = self._raw.get(store, {})
        return [(1, rows[key]) if key in rows else (0, None) for key in keys]

    def scan_state(self, function: str, store: str, prefix: str, begin: str, limit: int) -> Scanned:
        rows = self._raw.get(store, {})
        found = sorted(key for key in rows if key.startswith(prefix) and key > begin)
        page = found[:limit]
        last = page[-1] if page and len(page) < len(found) else None
        return Scanned([(key, 1, rows[key]) for key in page], Range(begin, last, len(page), b""))

    def extend(self, invocation: Invocation, seconds: float) -> None:
        """Nothing ends a handler that is called directly."""


class _Hand(Cursor):
    """The cursor all batches made here share: a test runs one handler at a time."""

    __slots__ = ("events", "single")

    def __init__(self) -> None:
        super().__init__()
        self.events: dict[int, Event[Any]] = {}
        # Made by itself, so it is the one that a handler of single events is given.
        self.single: Event[Any] | None = None


_hand = _Hand()


class _Notes(Recorder):
    """A recorder that takes any event made here for its own."""

    def __init__(
        self,
        invocation: Invocation,
        app: App | None,
        stores: Stores,
        secrets: Mapping[str, str],
    ) -> None:
        self._given = app
        self._streams: dict[str, Stream[Any]] = {}
        self.log: list[tuple[Lane, int]] = []
        self.failed: list[Event[Any]] = []
        self.finished_events: list[Event[Any]] = []
        declared = app.functions.get(invocation.function) if app is not None else None
        may_publish = frozenset(
            (*declared.spec.publishes, declared.spec.output or "") if declared else ()
        )
        super().__init__(
            invocation,
            [],
            app or App("test"),
            StateCache(),
            _Rows(stores, secrets, app),
            {},
            may_publish,
        )

    @property
    def at(self) -> int:  # a slot there; here shared by all batches
        return _hand.at

    @at.setter
    def at(self, index: int) -> None:
        _hand.at = index

    def extend(self, seconds: float) -> None:
        """Nothing ends a handler that is called directly."""

    def working_on(self) -> Event[Any] | None:
        return _hand.events.get(self.at) if self.at >= 0 else _hand.single

    def key_at(self, tag: int) -> str | None:
        event = self.working_on()
        return None if event is None else event.key

    def publish(self, *given: Any, **named: Any) -> Lane:
        lane = super().publish(*given, **named)
        self.log.append((lane, len(lane.notes) // 2 - 1))
        return lane

    def published(self) -> list[Published]:
        found = []
        for lane, index in self.log:
            tag = lane.tags[index]
            if tag in self.dropped or (tag < 0 and self._alone()):
                continue
            fact, decode = lane.facts[index], self._streams[lane.stream].decode
            if is_cancelled(self._cancels, lane, index, fact):
                continue
            found.append(
                Published(
                    lane.stream,
                    decode(fact.value),
                    fact.key,
                    fact.headers or {},
                    lane.partition,
                    fact.id,
                )
            )
        return found

    def cancelled(self) -> list[tuple[str, str]]:
        return [(each.stream, each.id) for each in self._cancels if each.tag not in self.dropped]

    def done(self, event: Event[Any]) -> None:
        super().done(event)
        self.finished_events.append(event)

    def fail(self, event: Event[Any], reason: str) -> None:
        super().fail(event, reason)
        self.failed.append(event)

    def _alone(self) -> bool:
        """Return whether a handler of single events failed its event: all it did was for that one."""
        return any(event._index not in _hand.events for event in self.failed)

    def index_of(self, event: object) -> int:
        """The event's index in the batch; what is not an event of it is refused."""
        if not isinstance(event, Event):
            raise Misuse(f"{event!r} is not an event; hand over what the handler was given")
        return event._index

    def _check_owner(self, store: Store[Any]) -> None:
        if self._given is not None:
            super()._check_owner(store)

    def _output(self, target: Stream[Any] | str) -> OutputStream:
        name = target if isinstance(target, str) else target.name
        if self._given is not None:
            output = super()._output(target)
            self._streams[name] = self._given.streams.get(name) or self._given.externals[name]
            return output
        if isinstance(target, str):
            target = _untyped(target)
        self._streams[name] = target
        return OutputStream(target, max(target.spec.partitions, 1))


class ContextByHand(Context):
    """A context for a unit test; what the handler did can be looked at."""

    __slots__ = ("_notes",)

    def __init__(self, invocation: Invocation, notes: _Notes, code: str, remaining: float) -> None:
        spent = invocation.timeout - remaining
        super().__init__(invocation, notes, 0.0, lambda: spent, code, "by-hand")
        self._notes = notes

    @property
    def published(self) -> list[Published]:
        """Return the published events in order, without those of failed events."""
        return self._notes.published()

    @property
    def cancelled(self) -> list[tuple[str, str]]:
        """The messages that were taken back, by queue and id, in order."""
        return self._notes.cancelled()

    @property
    def failed(self) -> list[Event[Any]]:
        """The events `fail` was called for, in order."""
        return list(self._notes.failed)

    @property
    def finished(self) -> list[Event[Any]]:
        """The events `done` was called for, in order."""
        return list(self._notes.finished_events)


def context(
    *,
    app: App | None = None,
    function: str = "test.function",
    state: Mapping[str, Any] | None = None,
    stores: Stores | None = None,
    attempt: int = 1,
    timeout: Duration = 30.0,
    remaining: Duration | None = None,
    now: datetime = _START,
    seed: int = 0,
    key: str = "test",
    trace: str = "",
    code: str = "test",
    secrets: Mapping[str, str] | None = None,
) -> ContextByHand:
    """A context to call a handler with.

    Args:
        app: The app, where publishing by name and to other apps' streams is to be checked.
        function: The function's full name.
        state: What `context.state` holds at first.
        stores: What stores hold at first, by the store: `{totals: {"ada": 3}}`.
        attempt: Which attempt it is to look like.
        timeout: How long it may take.
        remaining: What `remaining()` says; the timeout where nothing is given.
        now: What `now()` says.
        seed: What `random` is seeded with.
        key: The root of idempotency keys.
        trace: A W3C `traceparent`.
        code: The hash of the code.
        secrets: What the secrets are, by name; with `app`, the function must declare them.
    """
    if now.tzinfo is None:
        raise Misuse(f"`now={now!r}` has no time zone; add one, such as `tzinfo=UTC`")
    timeout_s = seconds_in(timeout, "`timeout=`", low=0, high=MAX_KEPT_S)
    invocation = BatchInvocation(
        function,
        chunks=(),
        attempt=attempt,
        timeout=timeout_s,
        key=key,
        trace=trace,
        now=round(now.timestamp() * 1e6),
        seed=seed,
    )
    left = timeout_s
    if remaining is not None:
        left = seconds_in(remaining, "`remaining=`", low=0, high=MAX_KEPT_S)
    kept = {OWN_STORE: state or {}, **(stores or {})}
    return ContextByHand(invocation, _Notes(invocation, app, kept, secrets or {}), code, left)


def event(
    value: Any = None,
    *,
    key: str | None = None,
    stream: Stream[Any] | str = "test",
    partition: int = 0,
    offset: int = 0,
    time: datetime = _START,
    headers: Mapping[str, str] | None = None,
    id: str | None = None,
    type: str | None = None,
    source: str | None = None,
    raw: bytes | None = None,
) -> Event[Any]:
    """An event to call a handler with.

    Args:
        value: The payload. With a `stream` it is written and read as that stream does it.
        key: The key.
        stream: The stream it comes from, as declared, or only its name.
        partition: Its partition.
        offset: Its offset.
        time: When it happened.
        headers: The headers of the event.
        id: The producer's id.
        type: The CloudEvents type.
        source: The CloudEvents source.
        raw: The payload's bytes in place of `value`, such as bytes that cannot be decoded.
    """
    typed = isinstance(stream, Stream)
    held = stream if isinstance(stream, Stream) else _untyped(stream)
    if raw is not None:
        payload = raw
    elif typed:
        payload = held.coder.encode(value)
    else:
        payload = value if isinstance(value, bytes) else encode_json(value)
    micros = round(time.timestamp() * 1e6)
    index = next(_indices)
    chunk = Chunk(held.name, partition, offset, 1, b"", micros, 0, 1)
    made: Event[Any] = Event(
        payload, key, micros, id, dict(headers) if headers else None, type, source
    )
    made._origin = Origin(chunk, index, held.decode)
    made._index = index
    if raw is None and not typed:
        made._value = value
    _hand.single = made
    return made


def batch(
    values: Iterable[Any], *, stream: Stream[Any] | str = "test", key: str | None = None
) -> Batch[Any]:
    """A batch to call a handler with.

    Args:
        values: Payloads, or events made by `event`; payloads get offsets 0, 1, 2, ...
        stream: The stream the payloads come from.
        key: The payloads' key.
    """
    events = [
        each if isinstance(each, Event) else event(each, key=key, stream=stream, offset=offset)
        for offset, each in enumerate(values)
    ]
    _hand.events = {each._index: each for each in events}
    _hand.single = None
    return Batch(events, _hand)


def _untyped(name: str) -> Stream[Any]:
    return Stream(StreamSpec(name=name), Coder("json"), app="test", external=False, place="")
