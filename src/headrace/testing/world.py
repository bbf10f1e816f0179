"""A whole node in your test: real handlers, the real delivery engine, virtual time.

In: apps, events, and what shall go wrong. Out: what was published, kept, given up; and checks that
say what broke, with the seed that makes it happen again. Nothing here is simulated but the disk,
the clock and the processes.

    with World(shop, seed=7) as world:
        world.publish("orders", {"id": 1}, key="ada")
        world.crash()
        world.run_until_idle()
        assert world.values("orders.priced") == [...]
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from random import Random  # noqa: TID251 - mixes the scheduler's order, from the seed
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

from msgspec import UNSET, UnsetType

from headrace.admin.dead_letters import DeadLetters
from headrace.admin.lag import LagRow
from headrace.admin.parked_keys import ParkedKeys
from headrace.bus.http_target import HttpRequest
from headrace.delivery.parked import ParkedKey
from headrace.model.codec import Coder
from headrace.model.due_time import Moment
from headrace.model.durations import Duration, seconds_in
from headrace.model.effects import DeadEvent
from headrace.model.errors import Misuse, Unavailable, Unknown
from headrace.model.outcome import Cause, Crashed, Outcome, Returned, TimedOut
from headrace.model.policy import MAX_KEPT_S
from headrace.model.record import Position, decode_events
from headrace.model.stores import StoreAddress
from headrace.runtime.child.error_cause import cause_of
from headrace.sdk.app import App
from headrace.sdk.app_folder import folders
from headrace.sdk.event import Event
from headrace.sdk.resource import Resource
from headrace.sdk.store import OWN_STORE, Store
from headrace.sdk.stream import Stream
from headrace.storage.state.rows import rows_of
from headrace.testing.checks import check_exactly_once, check_finished, check_order
from headrace.testing.chosen_settings import check_secrets, chosen
from headrace.testing.deliveries import Deliveries, Delivery, fate_of
from headrace.testing.faults import HostDied
from headrace.testing.hosts import HostedNode, Hosts, at_once
from headrace.testing.http_client import HttpClient
from headrace.testing.queues import QueueConsumer
from headrace.testing.served import ServedResponse
from headrace.testing.state_view import StateView
from headrace.testing.streams import events_of, facts_of
from headrace.testing.virtual_time import EPOCH, Livelock
from headrace.topology.external_consumers import consumer_name
from headrace.topology.map import map_rows, map_table

T = TypeVar("T")
V = TypeVar("V")

DAY_S = 86_400.0
PAGE = 10_000


class Due(NamedTuple):
    """A message of a queue that may not be received yet.

    Attributes:
        queue: The queue's name.
        id: The message's, or None.
        key: The message's, or None.
        value: What it holds.
        at: When it may be received.
    """

    queue: str
    id: str | None
    key: str | None
    value: Any
    at: datetime


class World:
    """Apps on a node that you can break. Use it as a context manager, from a plain test.

    It begins with each app's `folder` empty.

    Args:
        apps: What is deployed.
        seed: Decides every choice that is left to chance: delays, tokens, the order after `reorder`.
        start: When virtual time begins; an aware datetime.
        secrets: What the apps' secrets are, by name.
        resources: What stands in for the apps' resources while it is open; the others are opened.
        settings: What the apps' settings are, by name (`RATE`, or `shop.RATE`), while it is open.
    """

    def __init__(
        self,
        *apps: App,
        seed: int = 0,
        start: datetime | None = None,
        secrets: Mapping[str, str] | None = None,
        settings: Mapping[str, Any] | None = None,
        resources: Mapping[Resource[Any], Any] | None = None,
    ) -> None:
        if not apps:
            raise Misuse("a world needs an app; write `World(app)`")
        epoch = EPOCH if start is None else round(start.timestamp() * 1e6)
        self.seed = seed
        self._runs = Deliveries(lambda seconds: self._lives.clock.sleep(seconds))
        self._lives = Hosts(
            apps,
            seed=seed,
            epoch=epoch,
            watcher=self._runs,
            secrets=secrets,
        )
        self._apps = apps
        self._settings = dict(settings or {})
        self._secrets = dict(secrets or {})
        self._resources = dict(resources or {})
        self._held = ExitStack()
        self._http_client = HttpClient()
        self._open = False

    def __enter__(self) -> Self:
        with ExitStack() as held:
            held.enter_context(chosen(self._apps, self._settings))
            for resource, value in self._resources.items():
                held.enter_context(resource.override(value))
            check_secrets(self._apps, self._secrets)
            for app in self._apps:
                folders.empty(app.name)
            held.callback(self._lives.close)
            self._lives.open()
            self._held = held.pop_all()
        self._open = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            error.add_note(f"in {self!r}")
        self._open = False
        self._held.close()

    def __repr__(self) -> str:
        names = ", ".join(self._lives.apps)
        return f"World({names}, seed={self.seed}) at {self.now.isoformat()}"

    # --- time -------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        """The wall clock in this world."""
        return datetime.fromtimestamp(self._lives.clock.now() / 1e6).astimezone()

    def advance(self, duration: Duration) -> None:
        """Let time pass, with everything that happens in it: `"3d"`, `"2h30m"`, seconds."""
        self._require_open()
        self._lives.loop.run_for(
            seconds_in(duration, "`world.advance(...)`", low=0, high=MAX_KEPT_S)
        )
        self._check_workers()

    def run_until_idle(self, limit: Duration = "365d") -> list[Due]:
        """Go on, retries and all, until nothing is left to do but wait for a date.

        A date is not work: messages that are due later stay where they are, and schedules do not
        fire; `advance` lets their time come.

        Returns:
            The messages that wait for their time, the soonest first.

        Raises:
            Livelock: After `limit` there is still something to do.
        """
        self._require_open()
        limit_s = seconds_in(limit, "`limit=`", low=0, high=MAX_KEPT_S)
        if not self._lives.loop.run_until_idle(limit_s):
            raise Livelock(f"still busy after {limit}, in {self!r}:\n{self._lives.loop.dump()}")
        self._check_workers()
        return self.waiting

    @property
    def waiting(self) -> list[Due]:
        """The messages of queues that wait for their time, the soonest first."""
        return [
            Due(
                append.stream,
                event.id,
                event.key,
                self._coder(append.stream).decode(event.value),
                datetime.fromtimestamp(due / 1e6).astimezone(),
            )
            for due, append in self._lives.waiting()
            for event in decode_events(append.body)
        ]

    @property
    def deaths(self) -> list[str]:
        """Return the cause of each crash of a host, in order."""
        return self._lives.deaths

    @property
    def posted(self) -> list[HttpRequest]:
        """Return the requests to HTTP targets, in order; nothing leaves the world."""
        return self._lives.posted

    @property
    def answers(self) -> list[int]:
        """Return the list of the next answers of HTTP targets, in order; 200 once it is empty."""
        return self._lives.answers

    def consumer(self, queue: str | Stream[Any]) -> QueueConsumer:
        """A program outside that receives from a queue."""
        name = queue if isinstance(queue, str) else queue.name
        owner = self._lives.broker.stream(name).owner
        return QueueConsumer(
            consumer_name(owner, name), lambda: self._node.supervisor.queues, self._drive
        )

    def left_out(self, function: str | Callable[..., Any]) -> dict[str, int]:
        """Count the events that flow control left out since the host started, by policy."""
        return dict(self._node.services.runs.counters[self._named(function)].left_out)

    # --- producing --------------------------------------------------------------------------

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> ServedResponse:
        """Send a request to the node's server: routes, webhooks, and the platform's own paths.

        A `live` answer is listened to until its end. The client is on the node's own machine.

        Args:
            method: Such as `POST`.
            path: With its query.
            body: Bytes as they are, None for no body, anything else as JSON.
            **headers: With `_` for `-`.

        Raises:
            Invalid: The path is none.
            Unavailable: The host died before it answered, and what it had committed stays; or a
                `live` answer broke off, and nothing of it stays.
        """
        try:
            return self._drive(self._answered(method, path, body, headers))
        except HostDied as died:
            raise Unavailable(
                f"{died} before it answered; whether anything was kept is unknown, so ask again "
                "with the same `idempotency_key`"
            ) from died

    async def _answered(
        self, method: str, path: str, body: Any, headers: Mapping[str, str]
    ) -> ServedResponse:
        node = await self._lives.current()
        return await self._http_client.answer(node.services, method, path, body, headers)

    def publish(
        self,
        stream: str | Stream[Any],
        *values: Any,
        key: str | Callable[[Any], str] | None = None,
        id: str | None = None,
        time: datetime | float | None = None,
        headers: dict[str, str] | None = None,
        delay: Duration | None = None,
        at: Moment | None = None,
    ) -> list[Position | None]:
        """Publish values (or finished `headrace.model.event.Event`s), all in one batch.

        Args:
            stream: Its name, or the stream itself.
            values: Checked and encoded as the stream's type says.
            key: For all of them, or a function that takes a value and gives its key.
            id: The mark by which a repeated publish is dropped; only with a single value.
            time: When it happened; None means now.
            headers: Short strings in addition to the payload.
            delay: To a queue: the time before they may be received.
            at: To a queue: when they may be received, in place of `delay`.

        Returns:
            Where each landed; None for a duplicate that was dropped, and for what is due later.

        Raises:
            Unavailable: The host died under it; whether the events landed is unknown.
        """
        self._require_open()
        name = stream if isinstance(stream, str) else stream.name
        if (delay is not None or at is not None) and self._lives.broker.stream(name).queue is None:
            raise Misuse(f"`{name}` is a stream, not a queue: leave out `delay=` and `at=`")
        facts = facts_of(
            values,
            self._coder(name),
            key=key,
            id=id,
            time=time,
            headers=headers,
            delay=delay,
            at=at,
        )
        return self._drive(self._lives.publish(name, facts)).positions

    def cancel(self, queue: str | Stream[Any], id: str) -> bool:
        """Take back the message of this id, if it still waits for its time; whether it did."""
        name = queue if isinstance(queue, str) else queue.name
        return bool(self._drive(self._node.services.publisher.cancel(name, [id])))

    # --- breaking ---------------------------------------------------------------------------

    def crash(self, at: str | None = None, passes: int = 1) -> None:
        """The host dies: now, or at the given pass of a failpoint (see `headrace.environment.failpoints`).

        What was committed stays; everything in memory is gone. A new host comes up at once.
        """
        self._require_open()
        if at is None:
            self._lives.crash()
        else:
            self._lives.crash_at(at, passes)

    def deliver_twice(self) -> None:
        """The host dies after the next handler has run and before its commit: it will run again."""
        self._require_open()
        self._runs.twice += 1

    def reorder(self) -> None:
        """From now on let the seed decide who goes first among all that could."""
        self._lives.loop.shuffle(Random(self.seed))

    def fail(
        self,
        function: str | Callable[..., Any],
        error: BaseException | None = None,
        *,
        times: int = 1,
    ) -> None:
        """Let the next `times` runs of the function raise `error` before they do anything.

        Raises:
            Misuse: `error` is not an exception, or `times` not a number of runs.
            Unknown: No app of this world has such a function.
        """
        if not isinstance(error, BaseException | None):
            raise Misuse(
                f"`fail` takes what the handler is to raise, such as `ConnectionError('down')`, "
                f"not {error!r}; write how often as `times=`"
            )
        cause = Cause("Planned", "planned by the test") if error is None else cause_of(error)
        self._plan(function, times, Returned(error=cause))

    def timeout(self, function: str | Callable[..., Any], times: int = 1) -> None:
        """Let the next `times` runs of the function overrun their timeout."""
        outcome = TimedOut(Cause("TimedOut", "planned by the test"))
        self._plan(function, times, outcome, takes_timeout=True)

    def kill_instance(self, function: str | Callable[..., Any], times: int = 1) -> None:
        """Let the instance die during the next `times` runs of the function."""
        self._plan(function, times, Crashed(Cause("Crashed", "planned by the test")))

    def _plan(
        self,
        function: str | Callable[..., Any],
        times: int,
        outcome: Outcome,
        *,
        takes_timeout: bool = False,
    ) -> None:
        if times < 1:
            raise Misuse(f"`times` is a number of runs, at least 1, not {times!r}")
        self._runs.plan(self._named(function), times, outcome, takes_timeout=takes_timeout)

    # --- looking ----------------------------------------------------------------------------

    @property
    def deliveries(self) -> list[Delivery]:
        """Every event that was handed to a function, each time, and what became of it."""
        return self._runs.seen

    def published(self, stream: str | Stream[Any]) -> list[Event[Any]]:
        """Every event the stream holds, in the order they were appended."""
        name = stream if isinstance(stream, str) else stream.name
        return events_of(self._lives.broker, name, self._coder(name))

    def values(self, stream: str | Stream[Any]) -> list[Any]:
        """The value of every event the stream holds."""
        return [event.value for event in self.published(stream)]

    def state(self, function: str | Callable[..., Any]) -> StateView[Any]:
        """Return what a function has kept for itself by `context.state`, as it was committed.

        Args:
            function: Its full name, or the handler.

        Raises:
            Unknown: No app of this world has such a function.
        """
        if function in {*self._lives.apps, *self._lives.apps.values()}:
            raise Unknown(
                "each function has a state of its own: write `world.state(handler)`, and "
                "`world.store(totals)` for a store that the app declares"
            )
        name = self._named(function)
        return self._store(StoreAddress(name.partition(".")[0], name), OWN_STORE)

    def store(self, store: Store[V]) -> StateView[V]:
        """Return what a store of an app holds, as it was committed.

        Raises:
            Unknown: No app of this world declares it.
        """
        if not any(
            store is each for app in self._lives.apps.values() for each in app.stores.values()
        ):
            raise Unknown(f"`{store!r}` is not a store of an app of this world")
        return self._store(StoreAddress(store.app, "", store.name), store)

    def _store(self, address: StoreAddress, store: Store[V]) -> StateView[V]:
        lives = self._lives
        return StateView(lives.storage, lives.clock, rows_of(address), store.decode)

    def dead_letters(self, function: str | Callable[..., Any] | None = None) -> list[DeadEvent]:
        """Return the dead letters, by function and position."""
        return at_once(self._dead.list(self._named_or_all(function), limit=PAGE))

    def parked(self, function: str | Callable[..., Any] | None = None) -> list[ParkedKey]:
        """Return the parked keys and stopped partitions."""
        return at_once(self._lot.keys(self._named_or_all(function)))

    def lag(self, function: str | Callable[..., Any] | None = None) -> int:
        """Count the events that are not finished."""
        return sum(row.lag for row in self.lag_rows(function))

    def lag_rows(self, function: str | Callable[..., Any] | None = None) -> list[LagRow]:
        """Return the lag of each function in each partition."""
        return at_once(self._node.services.lag.rows(self._named_or_all(function)))

    def map(self) -> str:
        """The function-trigger map, as a table."""
        return map_table(map_rows(self._lives.specs, self._node.services.runs.observed()))

    # --- operating --------------------------------------------------------------------------

    def redrive(
        self,
        function: str | Callable[..., Any],
        *,
        key: str | None = None,
        positions: Sequence[Position] | None = None,
    ) -> int:
        """Run again what was given up or parked: one key, some dead letters, or everything."""
        function, count = self._named(function), 0
        if key is not None or positions is None:
            parked = at_once(self._lot.keys(function))
            if key is None or any(one.key == key for one in parked):
                count += self._drive(self._lot.redrive(function, key))
        if key is None:
            count += self._drive(self._dead.redrive(function, positions))
        return count

    def discard(self, function: str | Callable[..., Any], *, key: str | None = None) -> int:
        """Delete for good what is parked under the key; without one, all that is parked or dead."""
        function = self._named(function)
        count = self._drive(self._lot.discard(function, key))
        return count if key is not None else count + self._drive(self._dead.discard(function))

    def reset(
        self,
        function: str | Callable[..., Any],
        start: str = "earliest",
        *,
        order_of: str | None = None,
    ) -> None:
        """Send the function back (or forward): `earliest`, `latest`, an offset.

        `order_of` names a function whose order of merging it is to take.
        """
        supervisor = self._node.supervisor
        self._drive(supervisor.reset(self._named(function), start, order_of=order_of))

    def flush(
        self,
        function: str | Callable[..., Any],
        *,
        partition: int | None = None,
        key: str | UnsetType | None = UNSET,
    ) -> int:
        """Close the open windows of the function by hand; how many.

        Args:
            function: A function of `App.window`.
            partition: Of the stream it reads; None: all of them.
            key: Whose, None: those without a key; not given: all.
        """
        windows = self._node.services.windows
        return self._drive(
            windows.flush(self._named(function), partition=partition, key=key)
        ).closed

    def pause(self, function: str | Callable[..., Any]) -> None:
        """Let the function take up nothing new."""
        self._node.supervisor.pause(self._named(function))

    def resume(self, function: str | Callable[..., Any]) -> None:
        """Let it go on."""
        self._node.supervisor.resume(self._named(function))

    def bus_replay(
        self,
        stream: str | Stream[Any],
        *rules: str,
        begin: datetime | None = None,
        end: datetime | None = None,
        name: str = "replay",
    ) -> None:
        """Put what the stream held between two times to its rules again; see `headrace bus replay`."""
        first = 0 if begin is None else round(begin.timestamp() * 1e6)
        last = self._lives.clock.now() + 1 if end is None else round(end.timestamp() * 1e6)
        of = stream if isinstance(stream, str) else stream.name
        replays = self._node.services.replays
        self._drive(replays.start(name, of, begin=first, end=last, rules=list(rules)))

    # --- checking ---------------------------------------------------------------------------

    def assert_exactly_once(
        self,
        stream: str | Stream[Any],
        *,
        of: str | Stream[Any] | Iterable[Hashable] | None = None,
        by: Callable[[Event[Any]], Hashable] | None = None,
    ) -> None:
        """Nothing on `stream` is there twice; and with `of`, everything is there once.

        Args:
            stream: Where to look.
            of: Another stream whose every event must have left one here, or the very identities
                that must be here.
            by: What identifies an event; without it its key and payload do.
        """
        same = by if by is not None else _identity
        name = stream if isinstance(stream, str) else stream.name
        wanted: set[Hashable]
        if isinstance(of, (str, Stream)):
            wanted = {same(event) for event in self.published(of)}
        else:
            wanted = set() if of is None else set(of)
        found = [same(event) for event in self.published(stream)]
        check_exactly_once(name, repr(self), found, wanted)

    def assert_nothing_lost(self) -> None:
        """Every event is finished, dead or parked; none is still waiting."""
        check_finished(repr(self), self.lag_rows())

    def assert_order(
        self,
        where: str | Stream[Any] | Callable[..., Any],
        *,
        by: Callable[[Event[Any]], Any] | None = None,
    ) -> None:
        """Within each key nothing has overtaken anything.

        Args:
            where: A function (its handler or `app.name`): its first successful deliveries must
                follow the log. Or a stream: `by` must not decrease within a key.
            by: What must not decrease; only for a stream.

        Raises:
            Unknown: It is neither a function nor a stream of this world.
        """
        is_function = where in self._node.supervisor.functions or not isinstance(
            where, (str, Stream)
        )
        if isinstance(where, Stream):
            name = where.name
        else:
            name = self._named(where) if is_function else str(where)
        rows: list[tuple[Any, Any, str]]
        if is_function:
            rows = [
                (
                    (one.position.stream, one.position.partition, one.key),
                    one.position.offset,
                    str(one.position),
                )
                for one in self._runs.first_done(name)
            ]
        else:
            events = self.published(name)
            if by is None:
                raise Misuse(
                    f"`assert_order({name!r})` needs `by=`: what must not decrease in a key?"
                )
            rows = [((event.partition, event.key), by(event), event.position) for event in events]
        check_order(name, repr(self), rows)

    # --- inside -----------------------------------------------------------------------------

    def _named(self, function: str | Callable[..., Any]) -> str:
        """Return the full name of a function that is given by its handler or its name.

        Raises:
            Unknown: Nothing of this world has that name: an assertion about it would hold for ever.
        """
        if isinstance(function, str):
            return self._node.supervisor.known(function).name
        known = {
            name: declared
            for app in self._lives.apps.values()
            for name, declared in app.functions.items()
        }
        for name, declared in known.items():
            if function is declared.handler:
                return name
        raise Unknown(
            f"`{getattr(function, '__name__', function)}` is not a function of this world; it has "
            + ", ".join(f"`{each}`" for each in known)
        )

    def _named_or_all(self, function: str | Callable[..., Any] | None) -> str | None:
        return None if function is None else self._named(function)

    @property
    def _node(self) -> HostedNode:
        """The node that is up; after a crash, once the next one is."""
        node = self._lives.node
        return node if node.host.alive else self._drive(self._lives.current())

    @property
    def _dead(self) -> DeadLetters:
        return DeadLetters(self._lives.storage, self._node.supervisor, self._lives.clock)

    @property
    def _lot(self) -> ParkedKeys:
        return ParkedKeys(self._lives.storage, self._node.supervisor, self._lives.clock)

    def _coder(self, stream: str) -> Coder:
        for app in self._lives.apps.values():
            if stream in app.streams:
                return app.streams[stream].coder
        for app in self._lives.apps.values():
            if stream in app.externals:
                return app.externals[stream].coder
        return Coder(self._lives.broker.stream(stream).codec)

    def _require_open(self) -> None:
        if not self._open:
            raise Misuse("this world is not open; write `with World(app) as world:`")

    def _drive(self, work: Coroutine[Any, Any, T]) -> T:
        self._require_open()
        found = self._lives.loop.drive(work)
        self._check_workers()
        return found

    def _check_workers(self) -> None:
        if self._lives.failures:
            name, error = self._lives.failures[0]
            raise AssertionError(f"`{name}` stopped by its own fault in {self!r}") from error


def _identity(event: Event[Any]) -> Hashable:
    return event.key, event.raw


__all__ = ["Delivery", "StateView", "World", "fate_of"]
