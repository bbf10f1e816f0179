"""Declarations of `App.window`: an ordinary ordered function around the author's fold, checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, get_origin, get_type_hints

import msgspec
from msgspec.structs import replace

from headrace.model.codec import Coder, unbound
from headrace.model.durations import Duration, seconds_in
from headrace.model.errors import Misuse
from headrace.model.function import StreamSpec
from headrace.model.triggers.base import listener, own_settings
from headrace.model.triggers.files import Ends
from headrace.sdk.context import Context
from headrace.sdk.declaration_checks import Declared
from headrace.sdk.event import Event
from headrace.sdk.source_location import of_code
from headrace.sdk.stream import Stream, StreamSource
from headrace.sdk.windows import (
    MAX_SPAN_S,
    MIN_IDLE_S,
    ClosedWindow,
    Folding,
    HoppingWindow,
    SessionWindow,
    TumblingWindow,
    Windows,
)

_decode_end = msgspec.msgpack.Decoder(ClosedWindow | list[Any]).decode
"""A window that has closed, or the request to close some."""


class WindowRegistry(Protocol):
    """The part of an app that windows need."""

    name: str
    functions: dict[str, Declared]
    closed: dict[str, Stream[Any]]

    def function(self, *sources: Any, **options: Any) -> Callable[[Any], Any]:
        """Declare a function."""
        ...


def declare_window(
    app: WindowRegistry,
    fold: Callable[..., Any],
    source: Stream[Any] | StreamSource[Any],
    by: Windows,
    *,
    output: Stream[Any],
    lateness: Duration,
    idle: Duration | None,
    late: Stream[Any] | None,
    combine: Callable[[Any, Any], Any] | None,
    close: Callable[[ClosedWindow], Any] | None,
    options: Mapping[str, Any],
    place: str,
) -> None:
    """Declare `fold` as a window function of `app`.

    Raises:
        Misuse: Something cannot work; the message names file, line, cause and fix.
    """
    code = getattr(fold, "__code__", None)
    if code is None or code.co_argcount != 2 or code.co_flags & 0x2A0:
        raise Misuse(
            f"{place}: a window function is plain and takes two; write "
            "`def total(so_far, event): return ...`"
        )
    full = f"{app.name}.{options.get('name') or fold.__name__}"
    where = f"`{full}` ({of_code(code)})"
    given: Any = by
    if not isinstance(given, TumblingWindow | HoppingWindow | SessionWindow):
        raise Misuse(f'{where}: `{given!r}` is not a window; write `TumblingWindow("1m")`')
    if isinstance(by, SessionWindow) and combine is None:
        raise Misuse(f"{where}: an event may join two sessions; say how with `combine=`")
    if not isinstance(output, Stream):
        raise Misuse(f"{where}: `output={output!r}` is not a stream; windows are published there")
    if options.get("order", "partition") != "partition":
        raise Misuse(f"{where}: windows close by a partition's order; leave out `order=`")
    wait = seconds_in(lateness, f"{where}: `lateness`", low=0, high=MAX_SPAN_S)
    silence = (
        None
        if idle is None
        else seconds_in(idle, f"{where}: `idle`", low=MIN_IDLE_S, high=MAX_SPAN_S)
    )
    hints = get_type_hints(fold, include_extras=True)
    # The handler is declared first: which of its triggers the ends are is known only then.
    folding: Folding

    def handler(event: Event[Any], context: Context) -> None:
        folding.take(event, context)

    event_type = unbound(hints.get(code.co_varnames[1]))
    if get_origin(event_type) is Event:
        handler.__annotations__["event"] = event_type
    summary = ((fold.__doc__ or "").strip().splitlines() or [""])[0]
    named = {**options, "name": options.get("name") or fold.__name__, "order": "partition"}
    app.function(source, output=output, **named)(handler)
    stream = source.stream if isinstance(source, StreamSource) else source
    declared = app.functions[full]
    size = None if isinstance(by, SessionWindow) else by.size
    late_name = "" if late is None else late.name
    ends = Ends(max(stream.spec.partitions, 1), silence, size, late_name)
    closed = _closed(app.name, full, len(declared.spec.triggers), ends, place)
    folding = Folding(
        full,
        by,
        fold,
        of=hints.get("return", Any),
        combine=combine,
        lateness=wait,
        output=output,
        late=late,
        close=close,
        closed=closed,
    )
    app.closed[closed.name] = closed
    declared.decoders = {**declared.decoders, closed.name: _decode_end}
    declared.shape = replace(declared.shape, place=of_code(code), summary=summary)
    declared.spec = replace(
        declared.spec,
        summary=summary,
        source=of_code(code),
        triggers=(*declared.spec.triggers, ends),
    )


def _closed(app: str, function: str, at: int, ends: Ends, place: str) -> Stream[ClosedWindow]:
    """Stream on which a window function puts closed windows, to publish each by itself."""
    reads = listener(function, at, ends)
    assert reads is not None  # noqa: S101 - it has a stream of its own
    settings = own_settings(ends)
    spec = StreamSpec(name=reads.streams[0], owner=app, private=True, **settings)
    return Stream(spec, Coder(spec.codec, ClosedWindow), app=app, external=False, place=place)
