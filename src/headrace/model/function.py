"""Deployed things: streams, functions and apps as plain descriptions.

The zygote imports the author's code and sends these values to the host; the host never imports it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypedDict

import msgspec

from headrace.model.durations import Duration
from headrace.model.function_options import FunctionOptions
from headrace.model.options import Option
from headrace.model.policy import (
    MAX_BATCH_BYTES,
    MAX_DELAY,
    MAX_EVENT_BYTES,
    MAX_KEPT_S,
    MAX_PARTITIONS,
    MAX_RECEIVES,
    MAX_VISIBILITY,
)
from headrace.model.settings import SettingSpec
from headrace.model.sizes import Size
from headrace.model.triggers.base import StreamTrigger, Trigger, listeners
from headrace.model.triggers.bus import Forward
from headrace.model.triggers.debezium import Debezium
from headrace.model.triggers.files import Ends
from headrace.model.triggers.foreign import ForeignTrigger
from headrace.model.triggers.http import Proxy

Cleanup = Literal["delete", "compact"]
Codec = Literal["json", "msgpack", "bytes", "text"]


class QueueSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Options that make a stream a queue; see `App.queue`.

    Attributes:
        visibility: Seconds a message is with its receiver before it is given out again.
        max_receives: How often a message is given out at most; then it is a dead letter.
        fifo: Whether messages of one group (their key) are given out in order, one at a time.
        delay: Seconds before a message may be received.
        outside: Whether programs outside receive from it over HTTP; None means where no function
            of its app listens to it.
    """

    visibility: Annotated[
        float,
        Option(
            "how long a message is hidden after it was received; a function's `timeout`",
            0.001,
            MAX_VISIBILITY,
            fixed=True,
        ),
    ] = 30.0
    max_receives: Annotated[
        int, Option("how often a message is given out at most", 1, MAX_RECEIVES, fixed=True)
    ] = 5
    fifo: Annotated[bool, Option("order per key, one message of a key at a time", fixed=True)] = (
        False
    )
    delay: Annotated[
        float, Option("how long before a message may be received", 0, MAX_DELAY, fixed=True)
    ] = 0.0
    outside: Annotated[
        bool | None,
        Option(
            "whether programs outside receive from it",
            fixed=True,
            default="if no function reads it",
        ),
    ] = None


class StreamSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A stream as declared by its owner.

    Attributes:
        name: The full name; the author's name, which must be unique on the platform.
        owner: The app it belongs to, "" for streams without an owner.
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
    partitions: Annotated[
        int, Option("fixed once the stream exists", 1, MAX_PARTITIONS, fixed=True)
    ] = 1
    private: Annotated[bool, Option("only its own app may read or publish", fixed=True)] = False
    retention_age: Annotated[
        float | None,
        Option(
            "how long a record is kept, at least until its [retries](../concepts/delivery.md) end; "
            "`None` for ever, in a [queue](triggers.md#queues) until it is finished",
            0.001,
            MAX_KEPT_S,
        ),
    ] = None
    retention_bytes: Annotated[
        int | None,
        Option(
            "bytes kept per partition, not counting events that wait for a retry; `None` without bound",
            1,
            unit="bytes",
        ),
    ] = None
    cleanup: Annotated[
        Cleanup, Option('`"compact"` keeps the last event of every key', fixed=True)
    ] = "delete"
    dedupe_window: Annotated[
        float, Option("how long a repeated event id is recognised", 0, MAX_KEPT_S)
    ] = 600.0
    max_event_bytes: Annotated[
        int, Option("a larger event is refused", 1, MAX_BATCH_BYTES, unit="bytes")
    ] = MAX_EVENT_BYTES
    codec: Annotated[Codec, Option("`json`, `msgpack`, `bytes` or `text`", fixed=True)] = "json"
    schema: dict[str, Any] | None = None
    queue: QueueSpec | None = None


class StreamSettings(TypedDict, total=False):
    """Options of a stream as an author gives them, apart from partitions; see `App.stream`."""

    private: bool | None
    retention_age: Duration | None
    retention_bytes: Size | None
    cleanup: Cleanup | None
    dedupe_window: Duration | None
    max_event_bytes: Size | None
    codec: Codec | None


class QueueSettings(StreamSettings, total=False):
    """Options of a queue as an author gives them; see `App.queue`."""

    partitions: int | None
    visibility: Duration | None
    max_receives: int | None
    fifo: bool | None
    delay: Duration | None
    outside: bool | None


class StoreSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A store that an app declares; see `App.store`.

    Attributes:
        name: The author's name, unique in the app; without a dot, as a function's full name has one.
        type: The type of its values, for readers.
        ttl: Seconds a value is kept after it was written; None means until it is replaced.
    """

    name: str
    type: str = "Any"
    ttl: float | None = None


class FunctionSpec(FunctionOptions, frozen=True, kw_only=True):
    """A function as declared by its author, its options among it; everything but the code.

    Attributes:
        name: The full name, `app.function`; also its consumer group.
        app: Its app.
        version: A hash of the code it was loaded from.
        triggers: What sets it off.
        output: The stream that takes return values, or None.
        publishes: Streams it says it publishes to; of other apps', it may publish to these only.
        in_code: Streams that its code publishes to by name, as far as its source says.
        secrets: The names of the secrets it may ask for, its app's among them.
        stores: The names of its app's stores, which it may use besides its own.
        summary: The first line of the handler's docstring.
        source: Where the handler is defined, `file:line`.
    """

    name: Annotated[
        str,
        Option(
            "the function's short name; its full name is `app.name`",
            fixed=True,
            default="the handler's name",
        ),
    ]
    app: str
    version: str = ""
    triggers: tuple[Trigger, ...] = ()
    output: Annotated[
        str | None,
        Option("the stream that takes what the handler returns or yields", fixed=True),
    ] = None
    publishes: Annotated[
        tuple[str, ...],
        Option(
            "streams the function publishes to, for the map and the checks of the topology; "
            "of other apps' streams it may publish to these only",
            fixed=True,
        ),
    ] = ()
    in_code: tuple[str, ...] = ()
    secrets: Annotated[
        tuple[str, ...],
        Option(
            "names of the [secrets](../guides/configuration.md#secrets) it may ask for with "
            "`context.secret`, besides those of its app",
            fixed=True,
        ),
    ] = ()
    stores: tuple[str, ...] = ()
    summary: str = ""
    source: str = ""

    @property
    def change_streams(self) -> Mapping[str, Debezium]:
        """The streams it reads whose records are row changes, with the format of these."""
        return {
            name: trigger.changes
            for trigger, reads in listeners(self.name, self.triggers)
            if isinstance(trigger, (StreamTrigger, ForeignTrigger)) and trigger.changes is not None
            for name in reads.streams
        }

    @property
    def ends(self) -> tuple[Ends, str] | None:
        """The trigger of its closed windows, and their stream; None where it folds no windows."""
        for trigger, reads in listeners(self.name, self.triggers):
            if isinstance(trigger, Ends):
                return trigger, reads.streams[0]
        return None

    def for_ends(self) -> FunctionSpec:
        """As it takes its windows' ends: flow control may leave out events, never what came of them."""
        return msgspec.structs.replace(self, sample=None, debounce=None, singleton=None)

    @property
    def works_in_lanes(self) -> bool:
        """Return whether each key has a lane of its own, or each event where there is no order.

        With order per key that is so for a single worker too: a key's next run begins when the
        commit before has landed, which only its lane knows.
        """
        if self.order == "partition" or self.commit == "before":
            return False
        return self.order == "key" or self.parallelism > 1 or self.has_lane_rules

    @property
    def has_lane_rules(self) -> bool:
        """Return whether flow control distinguishes its events' keys."""
        return bool(self.per_key)


class AppSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A bounded context: its streams and functions, and who answers for it.

    Attributes:
        settings: What operators can set.
        env: The node's variables it asks for, as names and patterns.
        secrets: The names of the secrets that all its functions may ask for.
        stores: The stores it declares.
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
    stores: tuple[StoreSpec, ...] = ()
    generation: int = 0
