"""Recorder of an invocation's effects, each tagged with its event, so that those of a failed event can be dropped.

A tag is the index of the current event. Outside an iteration, and in a thread or task other than
the handler's, it is below zero, and each `done()` decrements it, so that effects before it can be
distinguished from those after it.

Threads of the handler take a lock where something is read before it is noted. An output is noted by
one step of the interpreter, which no other thread and no signal can divide. After the run nothing
can be noted.
"""

from __future__ import annotations

import logging
from _thread import RLock, allocate_lock, get_ident
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from zlib import crc32

from msgspec.structs import replace

from headrace.model.codec import is_misread, may_be_misread
from headrace.model.errors import Invalid, Misuse, Refused, TooLarge, Unknown
from headrace.model.event import Event as Fact
from headrace.model.invocation import BatchInvocation, Invocation
from headrace.model.near_names import near
from headrace.model.outcome import Cause, StateRead, StateWrite
from headrace.model.policy import MAX_HEADER_BYTES, MAX_HEADERS, MAX_KEY_BYTES
from headrace.model.record import NO_EVENTS, Append, encode_events
from headrace.model.redaction import Blot
from headrace.runtime.child import fork_detection
from headrace.runtime.child.error_cause import failed_for
from headrace.runtime.child.secrets import keys_of
from headrace.runtime.child.state_cache import StateCache
from headrace.runtime.child.state_session import StateHost, StateLedger
from headrace.sdk.app import App
from headrace.sdk.batch import Cursor
from headrace.sdk.consumer import Consumer
from headrace.sdk.event import SAME_KEY, Event, SameKey
from headrace.sdk.state import StateAccess
from headrace.sdk.store import OWN_STORE, Store
from headrace.sdk.stream import Stream

_one_lock = allocate_lock()
"""Held while a run's lock is created, so that two threads do not create two."""


class Lane:
    """Events published to one partition, with the tag of each.

    Attributes:
        notes: Fact, tag, fact, tag, and so on: both are added in one step.
        taken: How many of `notes` the last `appends` returned.
        has_ids: Whether one of the events has an id.
        has_later: Whether one of the events has a delay or a priority.
    """

    __slots__ = ("has_ids", "has_later", "notes", "partition", "stream", "taken")

    def __init__(self, stream: str, partition: int) -> None:
        self.stream = stream
        self.partition = partition
        self.notes: list[Any] = []
        self.taken = 0
        self.has_ids = False
        self.has_later = False

    @property
    def facts(self) -> list[Fact]:
        """The events, in order of publishing."""
        return self.notes[::2]

    @property
    def tags(self) -> list[int]:
        """Return the tags of the events."""
        return self.notes[1::2]


class Cancelled(NamedTuple):
    """A message that must not be delivered.

    Attributes:
        stream: The queue.
        id: The message's.
        tag: The tag of the cancellation.
        before: How many events each partition had at that time: only these can be cancelled.
    """

    stream: str
    id: str
    tag: int
    before: dict[int, int]


class Misread(Exception):
    """An output holds JSON that readers interpret differently, and its value is no longer available."""


class OutputStream:
    """One stream that a function publishes to, ready for use.

    Args:
        stream: The stream.
        partitions: How many it has.
        at_once: Whether a value is fully checked when it is published.
    """

    __slots__ = ("encode", "lanes", "limit", "name", "names_keys", "partitions", "unchecked")

    def __init__(self, stream: Stream[Any], partitions: int, at_once: bool = True) -> None:
        self.name = stream.name
        self.unchecked = stream.coder.codec == "json" and not at_once
        self.encode = stream.coder.encode if at_once else stream.coder.write
        self.names_keys = stream.coder.names_keys
        self.limit = stream.spec.max_event_bytes
        self.partitions = partitions
        self.lanes: dict[int, Lane] = {}

    def check(self, facts: list[Fact], body: bytes) -> None:
        """Check that no value of `facts`, which `body` holds in encoded form, would be misread.

        Raises:
            Misread: One would be.
        """
        # One search of the whole body first: looking at each value costs a fifth of the run.
        if may_be_misread(body, names_keys=self.names_keys) and any(
            is_misread(fact.value) for fact in facts
        ):
            raise Misread


class Recorder(Cursor):
    """One invocation's notes. Made, filled and collected by the executor.

    Args:
        at_once: Whether outputs are fully checked when they are published. If not, `appends` raises `Misread` for an
            output that would be misread, and the run must be repeated with this set.

    Attributes:
        is_over: Whether nothing can be noted any more.
        lock: Held by a thread while it notes anything but an output; created at first use.
        forks: `fork_detection.count` in the process of the run.
    """

    __slots__ = (
        "_app",
        "_at_once",
        "_cache",
        "_cancels",
        "_host",
        "_invocation",
        "_is_shared",
        "_ledgers",
        "_may_publish",
        "_named",
        "_outputs",
        "_partitions",
        "_seals",
        "_task",
        "_thread",
        "consumes",
        "dropped",
        "events",
        "finished",
        "forks",
        "is_over",
        "lock",
    )

    def __init__(
        self,
        invocation: Invocation,
        events: list[Event[Any]],
        app: App,
        cache: StateCache,
        host: StateHost,
        partitions: Mapping[str, int],
        may_publish: frozenset[str],
        at_once: bool = True,
    ) -> None:
        self.at = -1
        self._at_once = at_once
        self.events = events
        self.dropped: dict[int, Cause] = {}
        self.finished: set[int] = set()
        self.consumes: Consumer | None = None
        self._invocation = invocation
        self._app = app
        self._cache = cache
        self._host = host
        self._partitions = partitions
        self._may_publish = may_publish
        self._outputs: dict[Any, OutputStream] = {}
        self._named: dict[str, OutputStream] = {}
        self._cancels: list[Cancelled] = []
        self._seals = 0
        self._ledgers: dict[str, StateLedger] = {}
        self.forks = fork_detection.count
        self._is_shared = False
        self.lock: RLock
        self.is_over = False
        self._thread = 0
        self._task: Callable[[], bool] | None = None

    # -- for the context --------------------------------------------------------------------

    def ledger(self, store: Store[Any] = OWN_STORE) -> StateAccess:
        """Return the invocation's reads and writes of a store; most invocations need none.

        Raises:
            Misuse: The store is another app's, or the run is over.
        """
        self._check_owner(store)
        name = store.name
        found = self._ledgers.get(name)
        if found is None:
            self.enter("`context.store`", name) if name else self.enter("`context.state`")
            try:
                found = self._ledgers.get(name)
                if found is None:
                    found = self._ledgers[name] = StateLedger(
                        name, self, self._invocation, self._cache, self._host
                    )
            finally:
                self.lock.release()
        return found

    def _check_owner(self, store: Store[Any]) -> None:
        if store.app not in {"", self._app.name}:
            raise Misuse(
                f"`{self._invocation.function}` cannot open the store `{store.name}` of app "
                f"`{store.app}`: functions share stores within their app; publish what the other app "
                "is to know"
            )

    def tag(self) -> int:
        """Return the tag of effects that are noted now."""
        at = self.at
        # Only the handler's own thread and task iterate the batch: elsewhere the current event
        # says nothing.
        if at < 0 or (
            self._thread
            and (get_ident() != self._thread or (self._task is not None and not self._task()))
        ):
            return -1 - self._seals
        return at

    def working_on(self) -> Event[Any] | None:
        """Return the current event."""
        return self.events[self.at] if self.at >= 0 else None

    def key_at(self, tag: int) -> str | None:
        """Return the key of the event that an effect with this tag belongs to; None for no event."""
        return self.events[tag].key if tag >= 0 else None

    def publish(
        self,
        stream: Stream[Any] | str,
        value: Any,
        key: str | SameKey | None,
        headers: Mapping[str, str] | None = None,
        time: datetime | float | None = None,
        id: str | None = None,
        type: str | None = None,
    ) -> Lane:
        """Note an output, checked."""
        if fork_detection.count != self.forks or self.is_over:
            raise self.refusal(f"publishing to `{_name_of(stream)}`")
        output = self._outputs.get(stream)
        if output is None:
            output = self._open_output(stream)
        try:
            raw = output.encode(value)
        except Invalid as error:
            raise Invalid(f"publishing to `{output.name}`: {error}") from error
        if len(raw) > output.limit:
            raise TooLarge(
                f"publishing to `{output.name}`: the event has {len(raw):,} bytes and the stream "
                f"allows {output.limit:,}; publish a reference, or raise `max_event_bytes`"
            )
        # `self.tag()`, inlined: this runs once for every output.
        tag = self.at
        if tag < 0 or (self._thread and (self._task is not None or get_ident() != self._thread)):
            tag = self.tag()
        if key is SAME_KEY:
            key = self.key_at(tag)
        partitions = output.partitions
        if key is None:
            partition = 0 if partitions == 1 else self._keyless(partitions)
        else:
            try:
                name = key.encode()
            except (AttributeError, UnicodeEncodeError) as error:
                raise Invalid(
                    f"publishing to `{output.name}`: key `{key!r:.80}` is not a text: {error}"
                ) from error
            if len(name) > MAX_KEY_BYTES:
                raise Invalid(
                    f"publishing to `{output.name}`: the key has {len(name):,} bytes; "
                    f"the limit is {MAX_KEY_BYTES:,}"
                )
            partition = crc32(name) % partitions
        lane = output.lanes.get(partition)
        if lane is None:
            # `setdefault` is atomic: two threads get the same lane.
            lane = output.lanes.setdefault(partition, Lane(output.name, partition))
        if headers is None and time is None and id is None and type is None:
            fact = Fact(raw, key)
        else:
            try:
                fact = Fact(
                    raw, key, _micros(time), _checked_id(id), _checked_headers(headers), type
                )
            except Invalid as error:
                raise Invalid(f"publishing to `{output.name}`: {error}") from error
            if id is not None:
                lane.has_ids = True
        notes = lane.notes
        # One step of the interpreter, so neither a thread nor a signal can come between fact and tag.
        notes += (fact, tag)
        if self.is_over:
            # The run ended since the check above, and `appends` may have missed this output.
            raise self.refusal(f"publishing to `{output.name}`")
        return lane

    def publish_later(
        self,
        stream: Stream[Any] | str,
        value: Any,
        key: str | SameKey | None,
        headers: Mapping[str, str],
        time: datetime | float | None = None,
        id: str | None = None,
        type: str | None = None,
    ) -> Lane:
        """Check and note a queue's message with a delay or a priority, which is in its headers."""
        self._check_queue(stream, "`delay=`, `at=` and `priority=` are for messages")
        lane = self.publish(stream, value, key, headers, time, id, type)
        lane.has_later = True
        return lane

    def cancel(self, queue: Stream[Any] | str, id: str) -> None:
        """Check and note that a delayed message must not be delivered."""
        tag = self.enter("`context.cancel` of", id)
        try:
            self._check_queue(queue, "`cancel` is for messages")
            output = self._outputs.get(queue)
            if output is None:
                output = self._open_output(queue)
            if not _checked_id(id):
                raise Invalid(
                    "a message is cancelled by its id; hand over the one it was published with"
                )
            # A message of this run that was published before is dropped; one published after may
            # use the id again.
            before = {number: len(lane.notes) // 2 for number, lane in output.lanes.items()}
            self._cancels.append(Cancelled(output.name, id, tag, before))
        finally:
            self.lock.release()

    def _check_queue(self, stream: Stream[Any] | str, what: str) -> None:
        """Check that it is a queue, as far as this app knows; the host checks queues of other apps."""
        known = self._app.streams.get(_name_of(stream))
        if known is None and isinstance(stream, Stream) and not stream.external:
            known = stream
        if known is not None and known.spec.queue is None:
            raise Misuse(
                f"{what}, and `{known.name}` is a stream, whose events come at once, in order; declare "
                f'it with `queue("{known.name}")`'
            )

    def done(self, event: Event[Any]) -> None:
        """Note that the event is done."""
        self.enter(f"`context.done({event!r})`")
        try:
            self.finished.add(self.index_of(event))
            # Effects outside the iteration get another tag from here on, so that those before
            # `done` can be kept.
            self._seals += 1
        finally:
            self.lock.release()

    def fail(self, event: Event[Any], reason: str) -> None:
        """Note that the event failed, and drop its effects."""
        self.enter(f"`context.fail({event!r})`")
        try:
            self.drop(self.index_of(event), failed_for(reason, self.blot))
        finally:
            self.lock.release()

    @property
    def blot(self) -> Blot:
        """Return the function that removes the handler's secrets from a text."""
        return keys_of(self._host).blot

    def secret(self, name: str) -> str:
        """Return the value of a secret of the running function."""
        self.enter("`context.secret`")
        try:
            return keys_of(self._host).secret(name, self._invocation.function)
        finally:
            self.lock.release()

    def extend(self, seconds: float) -> None:
        """Let the run take `seconds` from now."""
        self.enter("`context.extend`")
        try:
            self._host.extend(self._invocation, seconds)
        finally:
            self.lock.release()

    def consumer(self) -> Consumer:
        """Return the consumer of a run that was started by lag."""
        if self.consumes is None:
            raise Misuse("a `Consumer` is there only in runs that a `Lag(...)` trigger has started")
        return self.consumes

    def index_of(self, event: object) -> int:
        """Return the event's index in the batch.

        Raises:
            Misuse: The event is not one of this batch.
        """
        index = event._index if isinstance(event, Event) else -1
        # By identity: an event that the handler kept from an earlier batch may have a valid index
        # here.
        if not 0 <= index < len(self.events) or self.events[index] is not event:
            raise Misuse(f"{event!r} is not an event of this batch")
        return index

    def enter(self, what: str, of: object = "") -> int:
        """Take the lock, so that no other thread notes anything until it is released.

        Args:
            what: The operation, for the error.
            of: Its object, for the error: one name, or several.

        Returns:
            The tag of effects that are noted under this lock.

        Raises:
            Misuse: The run is over, or this is not the process it runs in.
        """
        if fork_detection.count != self.forks:
            # Checked before the lock: a thread of the parent may have held it at the fork, and is
            # not in this process to release it.
            raise self.refusal(_asked(what, of))
        if not self._is_shared:
            self._make_lock()
        lock = self.lock
        lock.acquire()
        if self.is_over:
            lock.release()
            raise self.refusal(_asked(what, of))
        # `self.tag()`, inlined for the usual case: this runs for every key of state.
        at = self.at
        return self.tag() if at < 0 or self._thread else at

    def _make_lock(self) -> None:
        """Create the lock of this run at its first use: most runs need none."""
        with _one_lock:
            if not self._is_shared:
                self.lock = RLock()
                self._is_shared = True

    def check_process(self, what: str, of: object = "") -> None:
        """Check that this is not a process that the handler forked.

        Raises:
            Misuse: It is a forked process; see `enter`.
        """
        if fork_detection.count != self.forks:
            raise self.refusal(_asked(what, of))

    def refusal(self, what: str) -> Misuse:
        """Return the error for an effect that cannot be noted: the run is over, or this is a forked process."""
        if fork_detection.count != self.forks:
            return fork_detection.refusal(what)
        function = self._invocation.function
        error = Misuse(
            f"{what} came after the run of `{function}` had ended, and is lost: let the handler "
            "wait for its threads and tasks before it returns"
        )
        # Logged as well: an exception in a thread, or in a task that is not awaited, is never
        # shown.
        logging.getLogger(f"headrace.function.{function}").error("%s", error)
        return error

    def start_next(self) -> None:
        """Start the next commit: earlier effects are durable, and later ones write another version of state."""
        invocation = self._invocation
        # The token is the version of written state: each commit of a run needs another one.
        self._invocation = replace(invocation, token=invocation.token + 1)
        for output in list(self._named.values()):
            for lane in list(output.lanes.values()):
                # Outputs that another thread noted since `appends` belong to the next commit.
                del lane.notes[: lane.taken]
                lane.taken = 0
        self._cancels.clear()
        self.dropped.clear()
        self.finished.clear()
        self.events.clear()
        self._seals = 0
        for ledger in list(self._ledgers.values()):
            ledger.start_next(self._invocation)

    # -- for the executor -------------------------------------------------------------------

    def begin_walk(self, task: Callable[[], bool] | None) -> None:
        """Start the handler's own iteration over its events, in this thread.

        Args:
            task: Returns whether the current task is the handler's own; None if the handler has no task.
        """
        self._thread = get_ident()
        self._task = task

    def leave_if_forked(self) -> None:
        """Return, unless this is a process that the handler forked, which exits here."""
        if fork_detection.count != self.forks:
            fork_detection.leave()

    def close(self) -> None:
        """End the run: threads and tasks that the handler left can note nothing more."""
        # Set before the check: a thread that creates the lock after the check then finds the run
        # over.
        self.is_over = True
        if self._is_shared:
            # Taken once, to wait for a thread that has started a note.
            with self.lock:
                pass
        self.at = -1

    def drop(self, index: int, cause: Cause) -> None:
        """Mark the event as failed, so that its effects are dropped."""
        # The first cause stays: later ones are usually its consequences.
        self.dropped.setdefault(index, cause)

    def check(self) -> None:
        """Check all outputs, also dropped ones: an output that would be misread may be why the handler failed.

        Raises:
            Misread: An output would be misread; only if outputs were not checked at once.
        """
        for output in list(self._named.values()):
            if output.unchecked:
                for lane in list(output.lanes.values()):
                    facts = lane.facts
                    output.check(facts, encode_events(facts))

    def sealed(self, tag: int) -> bool:
        """Return whether a note outside any iteration was made before the last `done()`."""
        return tag < 0 and -1 - tag < self._seals

    def divides(self, kept: Callable[[int], bool]) -> bool:
        """Return whether the kept effects can be separated from the dropped ones, and do not depend on them."""
        tags = {
            tag
            for output in list(self._named.values())
            for lane in list(output.lanes.values())
            for tag in lane.tags
        }
        tags |= {cancel.tag for cancel in self._cancels}
        for ledger in self._ledgers.values():
            tags |= ledger.tags()
        if any(tag < 0 and kept(tag) for tag in tags):
            # Such an effect may belong to any of the events.
            return False
        return not any(ledger.entangled(kept) for ledger in self._ledgers.values())

    @property
    def blank(self) -> bool:
        """Return whether the run neither published nor used state."""
        return not self._outputs and not self._ledgers

    def appends(self, kept: Callable[[int], bool] | None) -> tuple[Append, ...]:
        """Return the outputs that are kept (None: all), one blob per partition, in order of publishing.

        Cancellations come first, so that an id may be used again. Messages that this run published
        and then cancelled are left out.

        Raises:
            Misread: An output would be misread; only if outputs were not checked at once.
        """
        found: list[Append] = []
        hops, origin = self._invocation.lineage
        cancels = [each for each in self._cancels if kept is None or kept(each.tag)]
        # Copies, since a thread that the handler left running may still open outputs.
        for output in list(self._named.values()):
            for lane in list(output.lanes.values()):
                facts: list[Fact] = lane.notes[::2]
                lane.taken = len(facts) * 2
                if kept is not None or cancels:
                    # Not strict: a late thread may have added a tag after `facts` was copied.
                    pairs = enumerate(zip(facts, lane.tags, strict=False))
                    facts = [
                        fact
                        for index, (fact, tag) in pairs
                        if (kept is None or kept(tag))
                        and not (cancels and is_cancelled(cancels, lane, index, fact))
                    ]
                if not facts:
                    continue
                body = encode_events(facts)
                if output.unchecked:
                    output.check(facts, body)
                ids = None
                if lane.has_ids:
                    ids = tuple(fact.id or "" for fact in facts)
                    ids = ids if any(ids) else None
                found.append(
                    Append(
                        lane.stream,
                        lane.partition,
                        len(facts),
                        body,
                        hops,
                        origin,
                        ids,
                        kind="delayed" if lane.has_later else "",
                    )
                )
        if len(found) > 1:
            found.sort(key=lambda append: (append.stream, append.partition))
        if cancels:
            return (*_cancelling(cancels, hops, origin), *found)
        return tuple(found)

    def writes(self, kept: Callable[[int], bool] | None) -> tuple[StateWrite, ...]:
        """Return the state changes that are kept (None: all), and cache them in the instance."""
        if not self._ledgers:
            return ()
        return tuple(
            write for ledger in list(self._ledgers.values()) for write in ledger.writes(kept)
        )

    def reads(self) -> tuple[StateRead, ...]:
        """Return the versions of state that the effects rely on."""
        if not self._ledgers:
            return ()
        return tuple(read for ledger in list(self._ledgers.values()) for read in ledger.reads())

    # -- publishing -------------------------------------------------------------------------

    def _open_output(self, stream: Stream[Any] | str) -> OutputStream:
        """Return the output of a stream: one for all names of the stream and all threads."""
        made = self._output(stream)
        output = self._outputs[stream] = self._named.setdefault(made.name, made)
        return output

    def _output(self, target: Stream[Any] | str) -> OutputStream:
        app = self._app
        name = _name_of(target)
        stream = app.streams.get(name) or app.externals.get(name) or app.closed.get(name)
        if stream is None:
            known = [*app.streams, *app.externals]
            raise Unknown(
                f"app `{app.name}` knows no stream `{name}`{near(name, known)}; declare it with "
                f'`stream("{name}")`, or with `external("{name}")` where it is another app\'s'
            )
        if stream.external and name not in self._may_publish:
            raise Refused(
                f"`{self._invocation.function}` did not say that it publishes to `{name}`, which "
                "is another app's; add `publishes=[...]` or `output=` to the function"
            )
        partitions = self._partitions.get(name, stream.spec.partitions)
        if partitions < 1:
            raise Unknown(f"stream `{name}` does not exist here; deploy the app that owns it first")
        return OutputStream(stream, partitions, self._at_once)

    def _keyless(self, partitions: int) -> int:
        """Choose the partition of an event without a key: that of its input if possible, else by the token."""
        invocation = self._invocation
        if isinstance(invocation, BatchInvocation) and (chunks := invocation.chunks):
            event = self.events[self.at] if self.at >= 0 else None
            chunk = event._origin.chunk if event is not None else chunks[0]
            own = self._app.streams.get(chunk.stream)
            count = self._partitions.get(chunk.stream, own.spec.partitions if own else 0)
            # The input's partition, so that a chain of functions with equal partitions keeps the
            # order of events without keys.
            if count == partitions and chunk.partition < partitions:
                number: int = chunk.partition
                return number
        return (invocation.token + max(self.at, 0)) % partitions


def _asked(what: str, of: object) -> str:
    if isinstance(of, str):
        return f"{what} `{of}`" if of else what
    return f"{what} {of!r:.80}"


def is_cancelled(cancels: Sequence[Cancelled], lane: Lane, index: int, fact: Fact) -> bool:
    """Return whether an event was taken back by the run that published it, before it was sent."""
    return fact.id is not None and any(
        cancel.stream == lane.stream
        and cancel.id == fact.id
        and index < cancel.before.get(lane.partition, 0)
        for cancel in cancels
    )


def _cancelling(cancels: Sequence[Cancelled], hops: int, origin: str) -> list[Append]:
    """Return the appends that cancel messages in the host, one for each queue."""
    by_stream: dict[str, dict[str, None]] = {}
    for cancel in cancels:
        by_stream.setdefault(cancel.stream, {})[cancel.id] = None
    return [
        Append(stream, 0, 0, NO_EVENTS, hops, origin, tuple(ids), kind="cancel")
        for stream, ids in sorted(by_stream.items())
    ]


def _name_of(stream: Stream[Any] | str) -> str:
    return stream if isinstance(stream, str) else str(getattr(stream, "name", repr(stream)))


def _micros(time: object) -> int | None:
    if time is None:
        return None
    if isinstance(time, datetime):
        if time.tzinfo is None:
            raise Invalid(f"`time={time!r}` has no time zone; add one, such as `tzinfo=UTC`")
        return round(time.timestamp() * 1e6)
    if isinstance(time, (int, float)) and not isinstance(time, bool) and 0 <= time < 1e11:
        return round(time * 1e6)
    raise Invalid(f"`time={time!r}` is neither an aware datetime nor seconds since the epoch")


def _checked_id(id: object) -> str | None:
    if id is None or (isinstance(id, str) and 0 < len(id) <= MAX_KEY_BYTES):
        return id
    raise Invalid(f"`id={id!r:.80}` is not a text of 1 to {MAX_KEY_BYTES:,} characters")


def _text_size(name: object, value: object) -> int:
    if not isinstance(name, str) or not isinstance(value, str):
        raise Invalid(f"header `{name!r:.80}` is not text to text")
    return len(name) + len(value)


def _checked_headers(headers: Mapping[str, str] | None) -> dict[str, str] | None:
    if not headers:
        return None
    found = dict(headers)
    if len(found) > MAX_HEADERS:
        raise Invalid(f"{len(found)} headers are given; the limit is {MAX_HEADERS}")
    size = 0
    for name, value in found.items():
        size += _text_size(name, value)
    if size > MAX_HEADER_BYTES:
        raise Invalid(f"the headers have {size:,} characters; the limit is {MAX_HEADER_BYTES:,}")
    return found
