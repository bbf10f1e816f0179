"""Declarations of `App.function`: handler, options and sources, checked against each other.

In: what an author said, by name. Out: one `Declared` function in the app's registry, or a `Misuse`
that names file, line, cause and fix. A declaration that is refused leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from headrace.model.errors import Misuse
from headrace.model.function import FunctionSpec
from headrace.model.route_conflicts import check_routes
from headrace.model.triggers.base import Trigger
from headrace.model.triggers.files import Custom
from headrace.model.triggers.http import Http, Proxy
from headrace.sdk.custom_trigger import Emitter
from headrace.sdk.declaration_checks import (
    Declared,
    check_lag,
    check_streams,
    decoders_of,
    own_decoders,
    refuse_other_answer,
    refuse_unread_events,
    refuse_unused_answer,
    refuse_without_effect,
    split_sources,
    triggers_of,
)
from headrace.sdk.handler_signature import shape_of
from headrace.sdk.options import (
    MERGE_OPTIONS,
    FunctionSettings,
    check_function_options,
)
from headrace.sdk.queue import queue_options
from headrace.sdk.routes import read_routes
from headrace.sdk.row_changes import change_readers
from headrace.sdk.secret_names import secret_names
from headrace.sdk.stream import Stream, StreamSource, check_name


class FunctionRegistry(Protocol):
    """The part of an app that functions need."""

    name: str
    streams: dict[str, Stream[Any]]
    externals: dict[str, Stream[Any]]
    functions: dict[str, Declared]
    triggers: dict[Callable[..., Any], Custom]
    proxies: list[Proxy]


def declare_function(
    app: FunctionRegistry,
    handler: Callable[..., Any],
    sources: tuple[Stream[Any] | StreamSource[Any] | Trigger | Emitter, ...],
    given: FunctionSettings,
    place: str,
) -> None:
    """Declare `handler` a function of `app`; `given` are its options.

    Raises:
        Misuse: Something cannot work; the message names file, line, cause and fix.
    """
    name = given.get("name")
    output, publishes = given.get("output"), given.get("publishes", ())
    short = name if name is not None else getattr(handler, "__name__", "")
    check_name(short, "a function", place)
    full = f"{app.name}.{short}"
    shape = shape_of(handler, full)
    where = f"`{full}` ({shape.place})"
    if full in app.functions:
        raise Misuse(
            f"{where}: a function of that name was declared before, at "
            f"{app.functions[full].shape.place}; give one of them another `name=`"
        )
    options = check_function_options(queue_options(sources, given), where)
    merge = {each: options.pop(each) for each in MERGE_OPTIONS if each in options}
    reads, others = split_sources(sources, app.triggers)
    streams = tuple(each.stream for each in reads)
    others, shape = read_routes(others, shape, where)
    known = {**app.streams, **app.externals}
    answers = any(isinstance(each, Http) and each.mode != "async" for each in others)
    check_streams(
        app.name,
        known,
        streams,
        output,
        publishes,
        shape,
        where,
        answers=answers,
        changes=frozenset(each.stream for each in reads if each.options.get("changes")),
    )
    triggers = (*others, *triggers_of(reads, merge, where, alone=not others))
    refuse_unread_events(shape, triggers, where)
    refuse_without_effect(options, triggers, where)
    refuse_unused_answer(shape, triggers, output, where)
    refuse_other_answer(shape, output, where)
    consumed = check_lag(streams, others, known, shape, where)
    spec = FunctionSpec(
        app=app.name,
        triggers=triggers,
        summary=shape.summary,
        source=shape.place,
        **{
            **options,
            "name": full,
            "output": output.name if output is not None else None,
            "publishes": tuple(stream.name for stream in publishes),
            "secrets": secret_names(given.get("secrets", ()), where),
        },
    )
    decoders = {
        **own_decoders(full, triggers, shape, where),
        **decoders_of((*streams, *consumed), shape, where),
        **change_readers(spec, shape, where),
    }
    check_routes([*(each.spec for each in app.functions.values()), spec], app.proxies)
    app.functions[full] = Declared(spec, handler, shape, output, decoders)
