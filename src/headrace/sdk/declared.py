"""What a declaration becomes, and the checks that need to see streams: who owns them, what they hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

from headrace.model.codec import Coder, codec_for
from headrace.model.errors import Misuse
from headrace.model.function import Cleanup, Codec, FunctionSpec
from headrace.model.trigger import CallTrigger, StreamTrigger, Trigger
from headrace.sdk.place import near
from headrace.sdk.shape import Shape
from headrace.sdk.stream import Stream


class StreamSettings(TypedDict, total=False):
    """The settings of a stream beside its name, partitions and type; see `App.stream`."""

    private: bool
    retention_age: float | None
    retention_bytes: int | None
    cleanup: Cleanup
    dedupe_window: float
    max_event_bytes: int | None
    codec: Codec | None


class Declared:
    """A function as it was declared: its spec, its handler, its form, and its output's stream."""

    __slots__ = ("handler", "output", "publishes", "shape", "spec")

    def __init__(
        self,
        spec: FunctionSpec,
        handler: Callable[..., Any],
        shape: Shape,
        output: Stream[Any] | None,
        publishes: tuple[Stream[Any], ...],
    ) -> None:
        self.spec = spec
        self.handler = handler
        self.shape = shape
        self.output = output
        self.publishes = publishes


def check_streams(
    app: str,
    known: Mapping[str, Stream[Any]],
    streams: Sequence[Stream[Any]],
    output: Stream[Any] | None,
    publishes: Sequence[Stream[Any]],
    shape: Shape,
    where: str,
) -> None:
    """Pass, where the streams a function names can be used by it.

    Raises:
        Misuse: One is no stream, another app's, listed twice, or of another type than the handler.
    """
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
    if shape.generates and output is None:
        raise Misuse(f"{where} yields, but has nowhere to put it; add `output=<stream>`")
    for stream in streams:
        said, held = shape.value, stream.coder.type
        if said is not Any and held is not Any and said != held and len(streams) == 1:
            raise Misuse(
                f"{where} is annotated with values of `{_shown(said)}`, but stream "
                f"`{stream.name}` ({stream.place}) holds `{_shown(held)}`; make them the same"
            )


def triggers_of(
    streams: Sequence[Stream[Any]], options: dict[str, Any], where: str
) -> tuple[Trigger, ...]:
    """One trigger per stream, or one for all where they are merged."""
    if not streams:
        if options:
            raise Misuse(f"{where}: `{next(iter(options))}=` needs a stream; list one first")
        return (CallTrigger(),)
    if options.get("merge", "none") == "none":
        if "lateness" in options:
            raise Misuse(f'{where}: `lateness=` means something only beside `merge="time"`')
        return tuple(StreamTrigger(streams=(stream.name,), **options) for stream in streams)
    if len(streams) < 2:
        raise Misuse(f"{where}: `merge=` needs two streams or more; list them, or leave it out")
    known = {stream.name: stream.spec.partitions for stream in streams if stream.spec.partitions}
    if len(set(known.values())) > 1:
        counts = ", ".join(f"`{name}` has {count}" for name, count in known.items())
        raise Misuse(
            f"{where}: streams to be merged need equal numbers of partitions, but {counts}; "
            "declare them with the same `partitions=`"
        )
    return (StreamTrigger(streams=tuple(stream.name for stream in streams), **options),)


def coder_of(codec: Codec | None, value: Any, where: str) -> Coder:
    """The coder of a stream's values, errors naming the stream."""
    try:
        return Coder(codec if codec is not None else codec_for(value), value)
    except Misuse as error:
        raise Misuse(f"{where}: {error}") from error


def check_whole(value: object, low: int, high: int, name: str, where: str) -> None:
    """Pass, where `value` is a whole number in range."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise Misuse(f"{where}: `{name}={value!r}` is out of range; use {low:,} to {high:,}")


def _shown(of: Any) -> str:
    return getattr(of, "__name__", None) or str(of)
