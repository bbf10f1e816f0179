"""What is deployed: streams, functions and apps as plain descriptions.

The zygote imports the author's code and sends these values to the host; the host never imports it.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from headrace.model.debezium import Debezium
from headrace.model.flow_control import Concurrency, Debounce, Priority, Rate, Singleton, Throttle
from headrace.model.policy import (
    MAX_EVENT_BYTES,
    Breaker,
    Commit,
    DeadLetter,
    OnFailure,
    Resources,
    Retry,
    Scaling,
)
from headrace.model.settings import SettingSpec
from headrace.model.triggers.base import StreamTrigger, Trigger, listeners
from headrace.model.triggers.bus import Forward
from headrace.model.triggers.files import Ends
from headrace.model.triggers.foreign import ForeignTrigger
from headrace.model.triggers.http import Proxy

Cleanup = Literal["delete", "compact"]
Codec = Literal["json", "msgpack", "bytes", "text"]


class QueueSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What makes a stream a queue; see `App.queue`.

    Attributes:
        visibility: Seconds a message is with whoever received it before it is given out again.
        max_receives: How often a message is given out at most; then it is a dead letter.
        fifo: Whether messages of one group (their key) are given out in order, one at a time.
        delay: Seconds before a message may be received.
        outside: Whether programs outside receive from it over HTTP; None means where no function
            of its app listens to it.
    """

    visibility: float = 30.0
    max_receives: int = 5
    fifo: bool = False
    delay: float = 0.0
    outside: bool | None = None


class StreamSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A stream as declared by its owner.

    Attributes:
        name: The full name; the author's name, which must be unique on the platform.
        owner: The app it belongs to, "" for streams nobody owns.
        partitions: From 1; fixed once the stream exists.
        private: Only its own app may read or publish.
        retention_age: Seconds a record is kept; None means for ever.
        retention_bytes: Bytes kept per partition; None means without bound.
        cleanup: `delete` old records, or `compact` to the last record of every key.
        dedupe_window: Seconds in which a repeated event id is dropped.
        max_event_bytes: A larger event is refused at the edge.
        codec: How `value` is encoded.
        schema: JSON Schema of the value where the author gave a type.
        queue: What makes it a queue, or None.
    """

    name: str
    owner: str = ""
    partitions: int = 1
    private: bool = False
    retention_age: float | None = None
    retention_bytes: int | None = None
    cleanup: Cleanup = "delete"
    dedupe_window: float = 600.0
    max_event_bytes: int = MAX_EVENT_BYTES
    codec: Codec = "json"
    schema: dict[str, Any] | None = None
    queue: QueueSpec | None = None


class FunctionSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A function as declared by its author; everything but the code.

    Attributes:
        name: The full name, `app.function`; also its consumer group.
        app: Its app.
        version: A hash of the code it was loaded from.
        triggers: What sets it off.
        output: The stream that takes return values, or None.
        publishes: Streams it says it publishes to; of other apps', it may publish to these only.
        in_code: Streams that its code publishes to by name, as far as its source says.
        batch_size: Events in one invocation at most; 1 to 10,000.
        batch_bytes: Bytes of events in one invocation at most.
        batch_window: Seconds to wait for a fuller batch, from when the log took its first event.
        mode: Ordering; see `Mode`.
        parallelism: Batches of one partition in flight (keyed and unordered only).
        commit: When positions move: `after` the effects (default), or `before` the run.
        timeout: Seconds one invocation may take.
        retry: When a failed event is tried again.
        bisect: Whether a failing batch is halved until the poison stands alone.
        on_failure: What becomes of an event whose attempts are spent.
        breaker: When to stop calling it.
        scaling: How many instances.
        resources: What one instance may use.
        concurrency: How many runs at once.
        throttle: How often runs begin; the others wait.
        rate: How many events are run; the others are left out.
        debounce: Whether only the last event of a key counts, after a quiet time.
        singleton: Whether a key has one run at a time.
        priority: Which waiting event goes first.
        batch_per_key: Whether a batch holds events of one key only.
        changes: How row changes are written in what it reads, or None for anything else.
        secrets: The names of the secrets it may ask for, its app's among them.
        summary: The first line of the handler's docstring.
        source: Where the handler is defined, `file:line`.
    """

    name: str
    app: str
    version: str = ""
    triggers: tuple[Trigger, ...] = ()
    output: str | None = None
    publishes: tuple[str, ...] = ()
    in_code: tuple[str, ...] = ()
    batch_size: int = 100
    batch_bytes: int = 4 << 20
    batch_window: float = 0.0
    mode: Literal["ordered", "keyed", "unordered"] = "ordered"
    parallelism: int = 1
    commit: Commit = "after"
    timeout: float = 30.0
    retry: Retry = Retry()
    bisect: bool = True
    on_failure: OnFailure = DeadLetter()
    breaker: Breaker | None = Breaker()
    scaling: Scaling = Scaling()
    resources: Resources = Resources()
    concurrency: Concurrency | None = None
    throttle: Throttle | None = None
    rate: Rate | None = None
    debounce: Debounce | None = None
    singleton: Singleton | None = None
    priority: Priority | None = None
    batch_per_key: bool = False
    changes: Debezium | None = None
    secrets: tuple[str, ...] = ()
    summary: str = ""
    source: str = ""

    @property
    def change_streams(self) -> frozenset[str]:
        """The streams it reads whose records are to be opened as row changes."""
        if self.changes is None:
            return frozenset()
        return frozenset(
            name
            for trigger, reads in listeners(self.name, self.triggers)
            if isinstance(trigger, (StreamTrigger, ForeignTrigger))
            for name in reads.streams
        )

    @property
    def folds(self) -> bool:
        """Whether it folds events into windows."""
        return any(isinstance(trigger, Ends) for trigger in self.triggers)

    def for_ends(self) -> FunctionSpec:
        """As it takes its windows' ends: flow control may leave out events, never what came of them."""
        return msgspec.structs.replace(self, rate=None, debounce=None, singleton=None)

    @property
    def works_in_lanes(self) -> bool:
        """Whether each key has a lane of its own, or each event where there is no order.

        With order per key that is so for a single worker too: a key's next run begins when the
        commit before has landed, which only its lane knows.
        """
        if self.mode == "ordered" or self.commit == "before":
            return False
        return self.mode == "keyed" or self.parallelism > 1 or self.has_lane_rules

    @property
    def has_lane_rules(self) -> bool:
        """Whether flow control needs to tell its events' keys apart."""
        limits = self.concurrency
        return bool(
            self.debounce
            or self.singleton
            or self.priority
            or self.batch_per_key
            or (self.throttle and self.throttle.per_key)
            or (limits and limits.per_key is not None)
        )


class AppSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A bounded context: its streams and functions, and who answers for it.

    Attributes:
        settings: What operators can set.
        env: The node's variables it asks for, as names and patterns.
        secrets: The names of the secrets that all its functions may ask for.
        generation: How often what operators gave to settings had changed when it was loaded: with other
            values it is another app, though its code is the same.
    """

    name: str
    owner: str = ""
    version: str = ""
    streams: tuple[StreamSpec, ...] = ()
    functions: tuple[FunctionSpec, ...] = ()
    proxies: tuple[Proxy, ...] = ()
    forwards: tuple[Forward, ...] = ()
    settings: tuple[SettingSpec, ...] = ()
    env: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    generation: int = 0
