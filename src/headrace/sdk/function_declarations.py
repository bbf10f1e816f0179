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
    split_sources,
    triggers_of,
)
from headrace.sdk.handler_signature import shape_of
from headrace.sdk.options import (
    TRIGGER_OPTIONS,
    FunctionSettings,
    check_function_options,
    start_of,
)
from headrace.sdk.queue import queue_options
from headrace.sdk.routes import read_routes
from headrace.sdk.row_changes import change_readers
from headrace.sdk.secret_names import secret_names
from headrace.sdk.stream import Stream, check_name


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
    sources: tuple[Stream[Any] | Trigger | Emitter, ...],
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
    trigger = {each: options.pop(each) for each in TRIGGER_OPTIONS if each in options}
    if "start" in trigger:
        trigger["start"] = start_of(trigger["start"], where)
    if not isinstance(trigger.get("pattern", {}), dict):
        raise Misuse(f"{where}: `pattern={trigger['pattern']!r}` is not a dict of what must match")
    streams, others = split_sources(sources, app.triggers)
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
        changes="changes" in options,
    )
    triggers = (*others, *triggers_of(streams, trigger, where, alone=not others))
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
    decoders = (
        decoders_of((*streams, *consumed), shape, where)
        if "changes" not in options
        else change_readers(spec, shape, where)
    )
    decoders = {**own_decoders(full, triggers, shape, where), **decoders}
    check_routes([*(each.spec for each in app.functions.values()), spec], app.proxies)
    app.functions[full] = Declared(spec, handler, shape, output, decoders)
