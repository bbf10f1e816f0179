"""Declarations of `App.stream`, `App.queue`, `App.external` and `App.bus`: the streams an app knows.

In: declarations, checked as they are made. Out: `Stream`s and `Queue`s, which functions and triggers
are declared with; their specs are values. A name is declared once, wherever that is.
"""

from __future__ import annotations

from typing import Any, TypeVar, Unpack, overload

from msgspec import structs

from headrace.model.codec import Coder
from headrace.model.errors import Misuse
from headrace.model.function import Codec, QueueSettings, QueueSpec, StreamSettings, StreamSpec
from headrace.model.options import option_rows
from headrace.model.triggers.bus import DEFAULT_BUS
from headrace.sdk.declaration_checks import coder_of
from headrace.sdk.options import (
    EXTERNAL_OPTIONS,
    QUEUE_OPTIONS,
    STREAM_OPTIONS,
    check_options,
    refuse_unknown,
)
from headrace.sdk.queue import Queue
from headrace.sdk.source_location import here
from headrace.sdk.stream import Stream, check_name

T = TypeVar("T")


class Streams:
    """The part of an `App` that declares streams; not used by itself.

    Attributes:
        name: The app's name.
        streams: Its own streams, by name.
        externals: Other apps' streams it meets, by name.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.streams: dict[str, Stream[Any]] = {}
        self.externals: dict[str, Stream[Any]] = {}

    @overload
    def stream(
        self, name: str, partitions: int, value: type[T], **settings: Unpack[StreamSettings]
    ) -> Stream[T]: ...

    @overload
    def stream(
        self,
        name: str,
        partitions: int = ...,
        *,
        value: type[T],
        **settings: Unpack[StreamSettings],
    ) -> Stream[T]: ...

    @overload
    def stream(
        self,
        name: str,
        partitions: int = ...,
        value: object = ...,
        **settings: Unpack[StreamSettings],
    ) -> Stream[Any]: ...

    def stream(
        self,
        name: str,
        partitions: int = 1,
        value: Any = Any,
        **settings: Unpack[StreamSettings],
    ) -> Stream[Any]:
        """Declare a stream of this app.

        Args:
            name: Unique on the platform.
            partitions: From 1; fixed once the stream exists.
            value: The type of its values; `bytes` and `str` stay as they are, others are JSON.
            private: Only this app may read or publish.
            retention_age: How long a record is kept; None means for ever.
            retention_bytes: Bytes kept per partition; None means without bound.
            cleanup: `delete` old records, or `compact` to the last one of every key.
            dedupe_window: The time in which a repeated event id is dropped.
            max_event_bytes: A larger event is refused.
            codec: `json`, `msgpack`, `bytes` or `text`, where the type should not decide.

        Raises:
            Misuse: The name is taken, an option is unknown or a setting cannot work.
        """
        place = here()
        refuse_unknown(settings, place, "a stream", STREAM_OPTIONS, "value")
        check_name(name, "a stream", place)
        where = f"{place}: stream `{name}`"
        options = check_options(STREAM_OPTIONS, {"partitions": partitions, **settings}, where)
        coder = coder_of(options.pop("codec", None), value, where)
        spec = StreamSpec(
            name=name,
            owner=self.name,
            codec=coder.codec,  # type: ignore[arg-type]  # one of CODECS, checked by Coder
            schema=coder.schema(),
            **options,
        )
        return self._keep(self.streams, spec, coder, external=False, place=place)

    @overload
    def queue(self, name: str, value: type[T], **settings: Unpack[QueueSettings]) -> Queue[T]: ...

    @overload
    def queue(
        self, name: str, value: object = ..., **settings: Unpack[QueueSettings]
    ) -> Queue[Any]: ...

    def queue(
        self,
        name: str,
        value: Any = Any,
        **settings: Unpack[QueueSettings],
    ) -> Queue[Any]:
        """Declare a queue of this app: messages that are acknowledged one by one.

        Functions listen to it like to a stream. Publish with `delay=` or `at=` (when a message may be
        received) and `priority=` (seconds by which it goes ahead).

        Args:
            name: Unique on the platform.
            value: The type of its messages, as for `stream`.
            visibility: How long a message is with its receiver; a function's `timeout`.
            max_receives: How often it is given out at most, then it is a dead letter.
            fifo: Whether messages of one key are given out in order, one at a time.
            delay: The time before a message may be received, where it says nothing itself.
            outside: Whether programs outside receive from it over HTTP; None means where no
                function of this app listens to it.
            **settings: And those of a `stream`: partitions, private, retention, dedupe_window, codec.

        Raises:
            Misuse: The name is taken or a setting cannot work.
        """
        place = here()
        where = f"{place}: queue `{name}`"
        if settings.pop("cleanup", None) not in (None, "delete"):
            raise Misuse(f"{where}: a queue keeps every message; leave out `cleanup=`")
        refuse_unknown(settings, place, "a queue", QUEUE_OPTIONS, "value")
        made = QueueSpec(**check_options(option_rows(QueueSpec), settings, where))
        given: dict[str, Any] = {
            each: value for each, value in settings.items() if each in STREAM_OPTIONS
        }
        stream = self.stream(name, value=value, **given)
        spec = structs.replace(stream.spec, queue=made)
        found: Queue[Any] = Queue(spec, stream.coder, app=self.name, external=False, place=place)
        self.streams[name] = found
        return found

    @overload
    def external(
        self, name: str, *, value: type[T], partitions: int = ..., codec: Codec | None = ...
    ) -> Stream[T]: ...

    @overload
    def external(
        self, name: str, *, value: object = ..., partitions: int = ..., codec: Codec | None = ...
    ) -> Stream[Any]: ...

    def external(
        self,
        name: str,
        *,
        value: Any = Any,
        partitions: int = 0,
        codec: Codec | None = None,
        **unknown: Any,
    ) -> Stream[Any]:
        """Name another app's public stream, to listen to it or publish to it.

        Args:
            name: The stream's name.
            value: The type this app reads its values as.
            partitions: How many it has, where the deploy-time check should know; 0 means unsaid.
            codec: Where the type should not decide.
            **unknown: Refused, with the names that look alike.
        """
        place = here()
        refuse_unknown(unknown, place, "a stream of another app", EXTERNAL_OPTIONS)
        check_name(name, "a stream", place)
        where = f"{place}: stream `{name}`"
        if partitions != 0:
            check_options(STREAM_OPTIONS, {"partitions": partitions}, where)
        coder = coder_of(codec, value, where)
        spec = StreamSpec(name=name, owner="", partitions=partitions, codec=coder.codec)  # type: ignore[arg-type]  # one of CODECS, checked by Coder
        return self._keep(self.externals, spec, coder, external=True, place=place)

    def bus(
        self, name: str = DEFAULT_BUS, partitions: int = 1, **settings: Unpack[StreamSettings]
    ) -> Stream[Any]:
        """Declare an event bus: a public stream whose events rules choose from (`Rule`).

        Args:
            name: Without one, the default bus, which all apps share.
            partitions: From 1; not for the default bus, which has one.
            **settings: As for a stream; `retention_age` is how long events can be replayed.

        Raises:
            Misuse: The name is taken, a setting cannot work, or the default bus is given any.
        """
        refuse_unknown(settings, here(), "a bus", STREAM_OPTIONS, "value")
        if name != DEFAULT_BUS:
            return self.stream(name, partitions, **settings)
        if partitions != 1 or settings:
            raise Misuse(
                f"{here()}: the default bus is everybody's and takes no settings; name a bus of "
                f'your own, such as `{self.name}.bus("{self.name}.events", ...)`'
            )
        known = self.externals.get(DEFAULT_BUS)
        return known if known is not None else self.external(DEFAULT_BUS)

    def _keep(
        self,
        among: dict[str, Stream[Any]],
        spec: StreamSpec,
        coder: Coder,
        *,
        external: bool,
        place: str,
    ) -> Stream[Any]:
        taken = self.streams.get(spec.name) or self.externals.get(spec.name)
        if taken is not None:
            raise Misuse(
                f"{place}: stream `{spec.name}` was declared before, at {taken.place}; "
                "keep one declaration and use its variable in both places"
            )
        stream: Stream[Any] = Stream(spec, coder, app=self.name, external=external, place=place)
        among[spec.name] = stream
        return stream
