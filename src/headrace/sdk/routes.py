"""Routes as authors declare them: types become schemas, decorator functions become functions.

In: triggers and handlers as written. Out: specs that can leave the author's process. Refuses two
routes of one app that would fit the same requests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_origin

import msgspec
from msgspec.structs import replace

from headrace.model.codec import Coder, codec_for
from headrace.model.errors import Misuse
from headrace.model.function import FunctionSpec
from headrace.model.jsonschema import may_be_object
from headrace.model.triggers.base import CallTrigger, Trigger
from headrace.model.triggers.http import Http, Webhook
from headrace.sdk.answer_types import answers_of
from headrace.sdk.declaration_checks import Declared, coder_of
from headrace.sdk.event import Event
from headrace.sdk.handler_signature import HandlerSignature, shape_of
from headrace.sdk.request import Reply, Request
from headrace.sdk.source_location import of_code

Before = Callable[[Request], Any]
After = Callable[[Reply], Any]
_BODYLESS = frozenset({"GET", "DELETE"})


def read_routes(
    triggers: tuple[Trigger, ...], shape: HandlerSignature, where: str
) -> tuple[tuple[Trigger, ...], HandlerSignature]:
    """The triggers with schemas in the place of types, and what the handler's values are then.

    Raises:
        Misuse: A type has no schema, or two of them cannot both be the handler's.
    """
    found: list[Trigger] = []
    for trigger in triggers:
        if isinstance(trigger, Http) and trigger.mode == "live" and not shape.generates:
            raise Misuse(
                f'{where}: a route with `mode="live"` sends what its handler yields, and this one '
                'does not yield; write `yield` for each part, or `mode="sync"`'
            )
        if isinstance(trigger, (Http, Webhook)):
            if Request in (get_origin(shape.value) or shape.value, trigger.body):
                raise Misuse(
                    f"{where}: a request's value is its body, and a `Request` is what it came with; write "
                    "`event: Event[Body]` with the body's type, and `Request.of(event)` for the rest"
                )
            body = shape.value if trigger.body is None else trigger.body
            if trigger.body is not None and shape.value not in (Any, trigger.body):
                raise Misuse(
                    f"{where}: its route has bodies of `{_shown(trigger.body)}`, but the handler is "
                    f"annotated with `{_shown(shape.value)}`; make them the same"
                )
            if shape.value is Any and trigger.body is not None:
                shape = replace(shape, value=trigger.body)
            trigger = _resolved(trigger, body, shape.request, where)
        if isinstance(trigger, Http):
            trigger = _answering(trigger, shape, where)
        found.append(trigger)
    return tuple(found), shape


def _resolved(trigger: Http | Webhook, body: Any, params: Any, where: str) -> Http | Webhook:
    if isinstance(trigger, Http) and set(trigger.methods) <= _BODYLESS:
        # Such requests have no body: their value is what the path and the query say.
        # `Request[Params]` names the same values, where the handler does not take them as an event.
        given = params if body is Any and params is not None else body
        query = given if trigger.query is None else trigger.query
        schema = _schema(query, where)
        if schema is not None and not may_be_object(schema):
            raise Misuse(
                f"{where}: a request by {' or '.join(trigger.methods)} has no body; its value is an object "
                f"of the query and the path's names, which no `{_shown(query)}` is. Use a Struct with a "
                "field for each, or `POST`"
            )
        return replace(trigger, body=None, query=None, query_schema=schema)
    codec = codec_for(body)
    changes: dict[str, Any] = {
        "body": None,
        "codec": codec,
        "schema": _schema(body, where, codec),
    }
    if isinstance(trigger, Http):
        changes |= {"query": None, "query_schema": _schema(trigger.query, where)}
    return replace(trigger, **changes)


def _answering(trigger: Http, shape: HandlerSignature, where: str) -> Http:
    if trigger.mode == "async":
        return trigger
    answers, any_status = answers_of(
        shape.answer,
        trigger.responses,
        generates=shape.generates,
        live=trigger.mode == "live",
        where=where,
    )
    return replace(trigger, responses=None, answers=answers, any_status=any_status)


def _schema(of: Any, where: str, codec: str = "json") -> dict[str, Any] | None:
    if of is None or of is Any:
        return None
    coder: Coder = coder_of(codec, of, where)
    return coder.schema()


def _shown(of: Any) -> str:
    return getattr(of, "__name__", None) or str(of)


class _Shaped(msgspec.Struct):
    """Input of a decorator function, over the wire; the body as base64."""

    status: int = 200
    headers: dict[str, str] = {}
    media: str = ""
    body: bytes = b""


def decorator_function(app: str, kind: str, shaper: Callable[[Any], Any]) -> Declared:
    """A `before` or `after` of a proxy as a function that is called.

    Raises:
        Misuse: It is not a plain function of one parameter.
    """
    code = getattr(shaper, "__code__", None)
    full = f"{app}.{getattr(shaper, '__name__', '')}"
    if code is None or code.co_argcount != 1 or code.co_flags & 0x2A0:
        given = "request" if kind == "before" else "reply"
        raise Misuse(
            f"`{kind}=` of a proxy takes a plain function of one parameter; write "
            f"`def shape({given}): ...`"
        )
    handler = _before(shaper) if kind == "before" else _after(shaper)
    summary = ((shaper.__doc__ or "").strip().splitlines() or [""])[0]
    shape = replace(shape_of(handler, full), place=of_code(code), summary=summary)
    spec = FunctionSpec(
        name=full, app=app, triggers=(CallTrigger(),), summary=summary, source=of_code(code)
    )
    return Declared(spec, handler, shape, None, {})


def _before(shaper: Before) -> Callable[..., Any]:
    def before(event: Event[Request]) -> Any:
        made = shaper(event.value)
        if made is None:
            made = event.value
        if isinstance(made, (Request, Reply)):
            return made
        raise TypeError(f"`{shaper.__name__}` returned `{made!r:.80}`; return a Request or a Reply")

    return before


def _after(shaper: After) -> Callable[..., Any]:
    def after(event: Event[_Shaped]) -> Any:
        given = event.value
        reply = _received(given)
        made = shaper(reply)
        if made is None:
            made = reply
        if isinstance(made, Reply):
            return made
        raise TypeError(f"`{shaper.__name__}` returned `{made!r:.80}`; return a Reply")

    return after


def _received(given: _Shaped) -> Reply:
    """The upstream's answer; headers that only the HTTP server may set are gone already."""
    return Reply(given.body, status=given.status, headers=given.headers, media=given.media)
