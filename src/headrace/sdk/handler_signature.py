"""Signature of a handler, read from its annotations and parameters, never by calling it.

In: the author's function. Out: a `HandlerSignature`. Where it can be read two ways, the error says what to
write. `inspect` is slow to load, so plain functions are read from their code object.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import CodeType
from typing import Annotated, Any, Final, get_args, get_origin, get_type_hints

import msgspec

from headrace.model.codec import unbound
from headrace.model.errors import Misuse
from headrace.sdk.batch import Batch
from headrace.sdk.consumer import Consumer
from headrace.sdk.context import Context
from headrace.sdk.event import Event
from headrace.sdk.request import Request
from headrace.sdk.source_location import of_code

_GENERATOR, _COROUTINE, _ASYNC_GENERATOR = 0x20, 0x80, 0x200
_VARARGS, _VARKEYWORDS = 0x04, 0x08
_BATCH_NAMES = frozenset({"batch", "events", "records", "messages"})
_OF_MODELS = frozenset({"pydantic", "pydantic_core", "annotated_types"})
_EVENT_NAMES = frozenset({"event", "message", "record"})


class HandlerSignature(msgspec.Struct, frozen=True):
    """Signature of a handler: how it is called.

    Attributes:
        batch: It takes a `Batch`; else one `Event`.
        parameters: What each of its parameters is given: `event` (or the batch), `context`,
            `request` or `consumer`.
        request: The type that the path's and the query's parameters are opened as; None for dicts.
        awaits: It is an `async def`.
        generates: It yields its outputs.
        value: The type of value its annotation names; `Any` where it names none.
        place: `file:line`.
        summary: The first line of its docstring.
        answer: The type its return annotation names; `Any` where it names none.
    """

    batch: bool
    parameters: tuple[str, ...]
    awaits: bool
    generates: bool
    value: Any
    place: str
    summary: str
    answer: Any = Any
    request: Any = None

    @property
    def takes_events(self) -> bool:
        """Return whether one of its parameters is the event or the batch."""
        return "event" in self.parameters


def shape_of(handler: Callable[..., Any], name: str) -> HandlerSignature:
    """The form of `handler`, the function `name`.

    Raises:
        Misuse: It is not a function, takes the wrong number of parameters, or can be read two ways.
    """
    code = _code_of(handler)
    if code is None:
        raise Misuse(
            f"`{name}`: `{handler!r}` is not a function; write `def {name.rpartition('.')[2]}"
            "(events: Batch, context: Context)`"
        )
    place = of_code(code)
    parameters = list(code.co_varnames[: code.co_argcount])
    if getattr(handler, "__self__", None) is not None:
        parameters = parameters[1:]
    optional = len(getattr(handler, "__defaults__", None) or ())
    hints = _hints(handler, name, place)
    # One with a default is the author's own, such as a fake that a test hands over.
    given = parameters[: len(parameters) - optional] or parameters[:1]
    given += [
        each
        for each in parameters[len(given) :]
        if _kind_of(hints.get(each)) or (each == parameters[1] and hints.get(each) in {None, Any})
    ]
    required = set(code.co_varnames[code.co_argcount :][: code.co_kwonlyargcount])
    required -= set(getattr(handler, "__kwdefaults__", None) or ())
    kinds = tuple(
        _parameter(number, each, hints.get(each), name, place) for number, each in enumerate(given)
    )
    if required or len(set(kinds)) < len(kinds):
        raise Misuse(
            f"`{name}` ({place}) takes ({', '.join((*parameters, *sorted(required)))}); a handler "
            f"takes {_FORMS}"
        )
    batch, value, request = False, Any, None
    for each, kind in zip(given, kinds, strict=True):
        if kind == "event":
            batch, value = _reading(each, hints.get(each), name, place)
        elif kind == "consumer":
            value = (get_args(hints.get(each)) or (Any,))[0]
        elif kind == "request":
            request = (get_args(hints.get(each)) or (None,))[0]
    if batch and "request" in kinds:
        raise Misuse(
            f"`{name}` ({place}): a batch has many requests; take one `event: Event[Body]` "
            "together with `request: Request`"
        )
    _check_bounds(value, f"`{name}` ({place})")
    flags = code.co_flags
    return HandlerSignature(
        batch=batch,
        parameters=kinds,
        request=request,
        awaits=bool(flags & (_COROUTINE | _ASYNC_GENERATOR)),
        generates=bool(flags & (_GENERATOR | _ASYNC_GENERATOR)),
        value=value,
        place=place,
        summary=((handler.__doc__ or "").strip().splitlines() or [""])[0],
        answer=hints.get("return", Any),
    )


_FORMS = (
    "an `event: Event[T]` or `events: Batch[T]`, and after it any of `context: Context` and "
    "`request: Request`; after a `Lag(...)` it takes a `consumer: Consumer[T]`, and what a schedule "
    "starts may take nothing"
)
_KINDS: Final[dict[Any, str]] = {Context: "context", Request: "request", Consumer: "consumer"}


def _kind_of(hint: Any) -> str:
    """Return what an annotation asks for besides the event; "" for anything else."""
    hint = unbound(hint)
    return _KINDS.get(get_origin(hint) or hint, "")


def _parameter(number: int, parameter: str, hint: Any, name: str, place: str) -> str:
    """Return what a parameter is given.

    Raises:
        Misuse: Its annotation says nothing that could be.
    """
    if kind := _kind_of(hint):
        return kind
    if number == 0:
        return "event"
    if hint is None or hint is Any:
        # A second parameter without an annotation is the context, whatever its name.
        return "context"
    shown = getattr(hint, "__name__", None) or str(hint)
    raise Misuse(
        f"`{name}` ({place}): nothing can be given to `{parameter}: {shown}`; a handler takes {_FORMS}"
    )


def _code_of(handler: Callable[..., Any]) -> CodeType | None:
    unwrapped: Any = handler
    while hasattr(unwrapped, "__wrapped__"):
        unwrapped = unwrapped.__wrapped__
    unwrapped = getattr(unwrapped, "__func__", unwrapped)
    code = getattr(unwrapped, "__code__", None)
    return code if isinstance(code, CodeType) else None


def _hints(handler: Callable[..., Any], name: str, place: str) -> dict[str, Any]:
    if not getattr(handler, "__annotations__", None):
        return {}
    try:
        return get_type_hints(handler, include_extras=True)
    except NameError as error:
        # A result type imported for type checkers only does no harm; a parameter's type does.
        found: dict[str, Any] = {}
        scope = (
            vars(sys.modules.get(handler.__module__)) if handler.__module__ in sys.modules else {}
        )
        for parameter, hint in handler.__annotations__.items():
            if parameter == "return":
                continue
            try:
                found[parameter] = get_type_hints(
                    type("hint", (), {"__annotations__": {"of": hint}}),
                    globalns=scope,
                    include_extras=True,
                )["of"]
            except NameError:
                raise Misuse(
                    f"`{name}` ({place}): the annotation `{hint}` of `{parameter}` cannot be "
                    f"resolved ({error}); import or define the type at the top of the module"
                ) from error
        return found


def _reading(parameter: str, hint: Any, name: str, place: str) -> tuple[bool, Any]:
    """Read whether the first parameter is a batch, and the type of its values."""
    hint = unbound(hint)
    origin = get_origin(hint) or hint
    if origin is Batch:
        return True, (get_args(hint) or (Any,))[0]
    if origin is Event:
        return False, (get_args(hint) or (Any,))[0]
    if hint is None or hint is Any:
        if parameter in _BATCH_NAMES:
            return True, Any
        if parameter in _EVENT_NAMES:
            return False, Any
        raise Misuse(
            f"`{name}` ({place}): it is not clear whether `{parameter}` is one event or a batch; "
            f"write `{parameter}: Event` or `{parameter}: Batch`"
        )
    arguments = get_args(hint)
    if origin in _SEQUENCES and arguments and (get_origin(arguments[0]) or arguments[0]) is Event:
        return True, (get_args(arguments[0]) or (Any,))[0]
    shown = getattr(hint, "__name__", None) or str(hint)
    raise Misuse(
        f"`{name}` ({place}): `{parameter}: {shown}` is neither an event nor a batch; write "
        f"`{parameter}: Event[{shown}]` for one event at a time (its value is `{parameter}.value`), "
        f"or `{parameter}: Batch[{shown}]` for many"
    )


def _check_bounds(of: Any, where: str) -> None:
    """Pass, where the bounds of a type are ones that will be kept.

    Raises:
        Misuse: They are pydantic's, which only its models know.
    """
    if get_origin(of) is Annotated:
        for bound in of.__metadata__:
            if type(bound).__module__.partition(".")[0] in _OF_MODELS:
                raise Misuse(
                    f"{where}: `{bound!r:.80}` bounds values in pydantic's models only; write "
                    "`msgspec.Meta(...)` in its place, or put the value into a model"
                )
    for part in get_args(of):
        _check_bounds(part, where)


def _sequences() -> frozenset[Any]:
    from collections.abc import Collection, Iterable, Sequence

    return frozenset({list, Sequence, Iterable, Collection})


_SEQUENCES = _sequences()
