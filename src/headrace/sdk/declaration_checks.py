"""Declared functions, and the checks that need to see streams: who owns them, what they hold."""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from types import NoneType, UnionType
from typing import Any, Final, Union, get_args, get_origin

from headrace.model.codec import Coder, alike, codec_for, is_bound, unbound
from headrace.model.errors import Misuse
from headrace.model.function import FunctionSpec
from headrace.model.near_names import near
from headrace.model.triggers.base import CallTrigger, StreamTrigger, Trigger, listeners
from headrace.model.triggers.files import Missing, Silence, Watch
from headrace.model.triggers.http import Http, Webhook
from headrace.model.triggers.lag import Lag
from headrace.model.triggers.schedules import Schedule
from headrace.model.triggers.tables import SqlTable
from headrace.sdk.handler_signature import HandlerSignature
from headrace.sdk.options import source_options
from headrace.sdk.request import Reply
from headrace.sdk.results import Failures, Output
from headrace.sdk.stream import Stream, StreamSource

TRIGGERS: Final[tuple[type[Any], ...]] = get_args(Trigger)
JSON_SOURCES: Final[tuple[type[Any], ...]] = (*get_args(Schedule), *get_args(Watch), SqlTable)


class Declared:
    """A function as it was declared.

    Attributes:
        spec: What the host receives.
        handler: The author's function.
        shape: The handler's form.
        output: The stream that takes what it returns or yields.
        decoders: Opens the values of each stream it listens to.
    """

    __slots__ = ("decoders", "handler", "output", "shape", "spec")

    def __init__(
        self,
        spec: FunctionSpec,
        handler: Callable[..., Any],
        shape: HandlerSignature,
        output: Stream[Any] | None,
        decoders: dict[str, Callable[[bytes], Any]],
    ) -> None:
        self.spec = spec
        self.handler = handler
        self.shape = shape
        self.output = output
        self.decoders = decoders


def check_streams(
    app: str,
    known: Mapping[str, Stream[Any]],
    streams: Sequence[Stream[Any]],
    output: Stream[Any] | None,
    publishes: Sequence[Stream[Any]],
    shape: HandlerSignature,
    where: str,
    *,
    answers: bool = False,
    changes: frozenset[Stream[Any]] = frozenset(),
) -> None:
    """Pass, where the streams a function names can be used by it.

    Of streams in `changes` its annotation is about the rows, not about the records that hold them.

    Raises:
        Misuse: One is not a stream, another app's, listed twice, or of another type than the handler.
    """
    if isinstance(publishes, Stream):
        raise Misuse(f"{where}: `publishes={publishes!r}` is one stream; write it in brackets")
    for stream in (*streams, *publishes, *(() if output is None else (output,))):
        if not isinstance(stream, Stream):
            hint = near(stream, known) if isinstance(stream, str) else ""
            raise Misuse(
                f"{where}: `{stream!r}` is not a stream{hint}; use the variable that "
                f'`{app}.stream("...")` or `{app}.external("...")` gave'
            )
        if stream.app != app:
            raise Misuse(
                f"{where}: stream `{stream.name}` was declared by app `{stream.app}`; write "
                f'`{app}.external("{stream.name}")` and use that'
            )
    names = [stream.name for stream in streams]
    if len(set(names)) != len(names):
        raise Misuse(f"{where}: a stream is listed twice ({', '.join(names)}); list it once")
    if shape.generates and output is None and not answers:
        raise Misuse(f"{where} yields, but has nowhere to put it; add `output=<stream>`")
    for stream in streams:
        if stream in changes:
            continue
        said, held = shape.value, stream.coder.type
        if not (said is Any or held is Any or alike(said, held)) and len(streams) == 1:
            raise Misuse(
                f"{where} is annotated with values of `{_shown(said)}`, but stream "
                f"`{stream.name}` ({stream.place}) holds `{_shown(held)}`; make them the same"
            )


def decoders_of(
    streams: Sequence[Stream[Any]], shape: HandlerSignature, where: str
) -> dict[str, Callable[[bytes], Any]]:
    """Decoders of each stream's values: as it was declared, or else as the handler is annotated.

    Raises:
        Misuse: The annotation names a type that cannot be decoded.
    """
    found = {stream.name: stream.decode for stream in streams}
    if len(streams) == 1 and shape.value is not Any and streams[0].coder.type is Any:
        codec = streams[0].coder.codec
        if codec in {"bytes", "text"} and codec_for(shape.value) != codec:
            raise Misuse(
                f"{where} is annotated with values of `{_shown(shape.value)}`, but stream "
                f"`{streams[0].name}` ({streams[0].place}) holds {codec}; make them the same"
            )
        found[streams[0].name] = coder_of(codec, shape.value, where).decode
    elif is_bound(shape.value):
        # What the handler bounds it is not given, however its streams were declared.
        for stream in streams:
            found[stream.name] = coder_of(stream.coder.codec, shape.value, where).decode
    return found


def split_sources(
    sources: Sequence[object], own: Mapping[Callable[..., Any], Trigger]
) -> tuple[tuple[StreamSource[Any], ...], tuple[Trigger, ...]]:
    """The streams among `sources`, as they are read, and the triggers; a generator stands for its trigger.

    What is neither is left among the streams, where `check_streams` says what is wrong with it.
    """
    triggers: list[Trigger] = []
    streams: list[StreamSource[Any]] = []
    for source in sources:
        if callable(source) and source in own:
            triggers.append(own[source])
        elif isinstance(source, TRIGGERS) and not isinstance(source, (StreamTrigger, CallTrigger)):
            triggers.append(source)
        elif isinstance(source, StreamSource):
            streams.append(source)
        else:
            of: Any = source
            streams.append(StreamSource(of, {}))
    return tuple(streams), tuple(triggers)


def own_decoders(
    function: str, triggers: tuple[Trigger, ...], shape: HandlerSignature, where: str
) -> dict[str, Callable[[bytes], Any]]:
    """Decoders of what its triggers bring in: as the handler is annotated.

    What our own triggers say is JSON; what comes from elsewhere is what it is.
    """
    if shape.value is Any:
        return {}
    return {
        reads.streams[0]: coder_of(
            "json" if isinstance(trigger, JSON_SOURCES) else None, shape.value, where
        ).decode
        for trigger, reads in listeners(function, triggers)
        if reads is not trigger and not isinstance(trigger, Lag)
    }


def check_lag(
    streams: Sequence[Stream[Any]],
    triggers: Sequence[Trigger],
    known: Mapping[str, Stream[Any]],
    shape: HandlerSignature,
    where: str,
) -> tuple[Stream[Any], ...]:
    """The stream a function consumes by itself, if it does; its values are opened as declared.

    Raises:
        Misuse: It has other triggers too, takes no batch and context, or the stream is unknown.
    """
    lags = [trigger for trigger in triggers if isinstance(trigger, Lag)]
    if not lags:
        return ()
    if len(triggers) + len(streams) > 1:
        raise Misuse(f"{where}: a `Lag(...)` has to be its only trigger; use two functions")
    name = lags[0].stream
    if name not in known:
        raise Misuse(
            f"{where}: no stream is called `{name}`{near(name, known)}; declare it before the "
            "function, with `stream(...)` or `external(...)`"
        )
    if known[name].spec.queue is not None:
        raise Misuse(f"{where}: `{name}` is a queue, whose messages are acknowledged one by one")
    if "consumer" not in shape.parameters or shape.takes_events:
        raise Misuse(
            f"{where}: what a `Lag(...)` starts takes `consumer: Consumer[T]`, which fetches its "
            "events, and may take `context: Context`; it is given no batch"
        )
    return (known[name],)


def refuse_unread_events(shape: HandlerSignature, triggers: Sequence[Trigger], where: str) -> None:
    """Pass, where the handler takes what its triggers give.

    Raises:
        Misuse: Nobody would read its events, or nobody starts it with a consumer.
    """
    if "consumer" in shape.parameters:
        if not any(isinstance(each, Lag) for each in triggers):
            raise Misuse(
                f"{where}: only what a `Lag(...)` starts takes a `Consumer`; take `events: Batch[T]`"
            )
        return
    if shape.takes_events:
        return
    for each in triggers:
        if not isinstance(each, WITHOUT_EVENTS):
            raise Misuse(
                f"{where} takes no event, but its trigger `{type(each).__name__}` gives it some; write "
                "`event: Event[T]` or `events: Batch[T]`"
            )


WITHOUT_EVENTS: Final[tuple[type[Any], ...]] = (
    *get_args(Schedule),
    Silence,
    Missing,
    CallTrigger,
    Http,
    Webhook,
)
"""Triggers whose event a handler may leave unread: it says no more than that it is time, or that somebody calls."""


def triggers_of(
    reads: Sequence[StreamSource[Any]], merge: dict[str, Any], where: str, *, alone: bool = True
) -> tuple[Trigger, ...]:
    """One trigger per stream, or one for all where they are merged.

    A function without a stream is called; unless other triggers set it off (`alone` is False).

    Raises:
        Misuse: An option cannot hold for these streams.
    """
    if not reads:
        if merge:
            raise Misuse(f"{where}: `{next(iter(merge))}=` needs a stream; list one first")
        return (CallTrigger(),) if alone else ()
    options = [source_options(each.options, where) for each in reads]
    streams = [each.stream for each in reads]
    if merge.get("merge", "none") == "none":
        if "idle_timeout" in merge:
            raise Misuse(f'{where}: `idle_timeout=` means something only with `merge="time"`')
        return tuple(
            StreamTrigger(streams=(stream.name,), **each)
            for stream, each in zip(streams, options, strict=True)
        )
    if len(streams) < 2:
        raise Misuse(f"{where}: `merge=` needs two streams or more; list them, or leave it out")
    # A merge is one order over all its streams: what one of them leaves out would decide for all.
    if any(each != options[0] for each in options):
        raise Misuse(
            f"{where}: streams to be merged are read alike; give every `read(...)` the same options"
        )
    known = {stream.name: stream.spec.partitions for stream in streams if stream.spec.partitions}
    if len(set(known.values())) > 1:
        counts = ", ".join(f"`{name}` has {count}" for name, count in known.items())
        raise Misuse(
            f"{where}: streams to be merged need equal numbers of partitions, but {counts}; "
            "declare them with the same `partitions=`"
        )
    names = tuple(stream.name for stream in streams)
    return (StreamTrigger(streams=names, **merge, **options[0]),)


def refuse_unused_answer(
    shape: HandlerSignature, triggers: Sequence[Trigger], output: Stream[Any] | None, where: str
) -> None:
    """Pass, where what the annotation says that a handler returns has a place to go.

    Raises:
        Misuse: Events set the function off, no caller waits, and it has no `output=`.
    """
    parts = get_args(shape.answer) if isinstance(shape.answer, UnionType) else (shape.answer,)
    said = [each for each in parts if each not in {Any, None, NoneType, Failures}]
    has_caller = any(isinstance(each, Http) and each.mode != "async" for each in triggers)
    if output is not None or not said or has_caller or not listeners("", tuple(triggers)):
        return
    raise Misuse(
        f"{where} is annotated to return `{_shown(shape.answer)}`, and nobody takes what it returns: "
        "add `output=<stream>`, or annotate it with `-> None`"
    )


def refuse_other_answer(shape: HandlerSignature, output: Stream[Any] | None, where: str) -> None:
    """Pass, where what the annotation says that a handler returns or yields is what its output holds.

    Type checkers see more of it (`declares.py`); this is for authors who use none.

    Raises:
        Misuse: It is of another type.
    """
    held = Any if output is None else unbound(output.coder.type)
    if output is None or held is Any:
        return
    for said in _values_of(shape.answer, held):
        if not any(_may_be(said, each) for each in _parts_of(held)):
            raise Misuse(
                f"{where} is annotated to return `{_shown(said)}`, but its output `{output.name}` "
                f"({output.place}) holds `{_shown(held)}`; make them the same"
            )


def _may_be(said: Any, held: Any) -> bool:
    """Return whether values of a type may be those of a stream; only classes that exclude each other may not."""
    mine, its = get_origin(said) or said, get_origin(held) or held
    if not (isinstance(mine, type) and isinstance(its, type)):
        return True
    # A dict may stand for a struct: both are objects in JSON. A whole number is a number.
    return issubclass(mine, (its, dict)) or (mine is int and its is float)


def _parts_of(of: Any) -> tuple[Any, ...]:
    is_union = (get_origin(of) or of) in {UnionType, Union}
    return tuple(unbound(part) for part in get_args(of)) if is_union else (of,)


def _values_of(answer: Any, held: Any) -> Iterator[Any]:
    """Each type of value that a handler with this return annotation gives to its output, unless it is `Any`."""
    answer = unbound(answer)
    origin, parts = get_origin(answer) or answer, get_args(answer)
    if origin in {UnionType, Union}:
        for part in parts:
            yield from _values_of(part, held)
    elif (
        origin in GENERATED
        or (origin is list and (get_origin(held) or held) is not list)
        or origin is Output
    ):
        yield from _values_of(parts[0] if parts else Any, held)
    elif answer not in {Any, None, NoneType, Failures, Reply}:
        yield answer


GENERATED: Final = {Iterator, Iterable, Generator, AsyncIterator, AsyncIterable, AsyncGenerator}
ONLY_CALLED: Final = frozenset({"name", "output", "publishes", "secrets"}) | {
    "timeout",
    "scaling",
    "resources",
}
"""Options that matter for a function that is only called: nothing is read, so nothing waits, is batched or tried again."""
CONSUMES: Final = ONLY_CALLED | {"batch_bytes"}
"""Options that matter for a function that fetches its events itself."""


def refuse_without_effect(
    options: Mapping[str, Any], triggers: Sequence[Trigger], where: str
) -> None:
    """Pass, where every option that was given matters for one of the triggers.

    Raises:
        Misuse: One does not.
    """
    lag = any(isinstance(each, Lag) for each in triggers)
    if lag:
        known, why = CONSUMES, "what a `Lag(...)` starts fetches its events itself"
    elif not listeners("", tuple(triggers)):
        known, why = ONLY_CALLED, "the function is only called, and its caller waits"
    else:
        return
    for name in options:
        if name not in known:
            raise Misuse(
                f"{where}: `{name}=` has no effect here: {why}; leave it out, or list a stream"
            )


def coder_of(codec: str | None, value: Any, where: str) -> Coder:
    """The coder of a stream's values, errors naming the stream."""
    try:
        return Coder(codec if codec is not None else codec_for(value), value)
    except Misuse as error:
        raise Misuse(f"{where}: {error}") from error


def _shown(of: Any) -> str:
    return getattr(of, "__name__", None) or str(of)
