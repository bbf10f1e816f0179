"""The authors' routes as an OpenAPI 3.1 document, made from their types. Pure: apps in, data out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final

from headrace.model import problem
from headrace.model.function import AppSpec, FunctionSpec
from headrace.model.route import Segment, segments_of
from headrace.model.triggers.http import Answer, Http, Proxy, Webhook
from headrace.model.work_steps import Steps, at_once
from headrace.topology.openapi_components import Components

_KINDS: Final[dict[str, dict[str, Any]]] = {
    "str": {"type": "string"},
    "path": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "uuid": {"type": "string", "format": "uuid"},
    "date": {"type": "string", "format": "date"},
    "datetime": {"type": "string", "format": "date-time"},
    "decimal": {"type": "string", "format": "decimal"},
}
_BODYLESS: Final = frozenset({"GET", "DELETE"})
_SAID_ELSEWHERE: Final = frozenset({"accept", "authorization", "content-type"})
"""Headers that OpenAPI describes by other means, and wants no parameter for."""
_NAMES = re.compile(r"\{([^}]+)\}")
ACCEPTED: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["accepted", "duplicate"],
    "properties": {
        "accepted": {"type": "boolean"},
        "duplicate": {"type": "boolean"},
        "status": {"type": "string", "description": "Where to ask what became of it."},
    },
}


def document(apps: Iterable[AppSpec], *, version: str = "") -> dict[str, Any]:
    """The document of these apps' routes."""
    return at_once(document_of(apps, version=version))


def document_of(apps: Iterable[AppSpec], *, version: str = "") -> Steps[dict[str, Any]]:
    """The document of these apps' routes, a function or proxy at a time."""
    # The platform's own apps have no routes, and no place in the title.
    known = [app for app in apps if not app.name.startswith("_")]
    components = Components({"Problem": problem.SCHEMA, "Accepted": ACCEPTED})
    paths = Paths()
    # A security scheme that no route uses would make readers ask for a token.
    scopes = False
    for app in known:
        for function in app.functions:
            for trigger in function.triggers:
                if isinstance(trigger, (Http, Webhook)):
                    scopes = scopes or trigger.auth is not None
                    for method in trigger.methods:
                        paths.put(
                            trigger.segments,
                            method,
                            _operation(app, function, trigger, method, components),
                        )
            # A step: a document of hundreds of routes must not block the loop while it is made.
            yield
        for proxy in app.proxies:
            scopes = scopes or proxy.auth is not None
            segments = segments_of(proxy.path, proxy.path)
            for method in proxy.methods:
                paths.put(segments, method, _passed(app, proxy, method, segments))
            yield
    yield from _number(paths.known)
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": ", ".join(app.name for app in known) or "headrace",
            "version": version or "+".join(app.version[:12] for app in known if app.version) or "0",
        },
        "paths": paths.known,
        "components": {"schemas": components.schemas},
    }
    if scopes:
        found["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return found


class Paths:
    """Operations by path and method, as OpenAPI has them."""

    def __init__(self) -> None:
        self.known: dict[str, dict[str, Any]] = {}
        self._alike: dict[str, str] = {}

    def put(self, segments: tuple[Segment, ...], method: str, operation: dict[str, Any]) -> None:
        """Add an operation."""
        path = "/" + "/".join(
            f"{{{segment.name}}}" if segment.name else segment.text for segment in segments
        )
        # To OpenAPI two paths that differ in nothing but names are one, and a reader may refuse both.
        alike = self._alike.setdefault(_unnamed(path), path)
        if alike != path:
            # The parameters take the names of the path that came first.
            named = dict(zip(_NAMES.findall(path), _NAMES.findall(alike), strict=True))
            operation["parameters"] = [
                each | {"name": named[each["name"]]} if each["in"] == "path" else each
                for each in operation["parameters"]
            ]
        self.known.setdefault(alike, {})[method.lower()] = operation


def _number(paths: dict[str, dict[str, Any]]) -> Steps[None]:
    """Make each operation's id unique: paths such as `/a-b` and `/a_b` give the same words."""
    taken: dict[str, int] = {}
    for path in paths.values():
        for operation in path.values():
            name = operation.get("operationId", "")
            taken[name] = count = taken.get(name, 0) + 1
            if name and count > 1:
                # No words of a path hold a dot, so no other id is like this one.
                operation["operationId"] = f"{name}.{count}"
        yield


def _unnamed(path: str) -> str:
    return _NAMES.sub("{}", path)


def _operation(
    app: AppSpec,
    function: FunctionSpec,
    route: Http | Webhook,
    method: str,
    components: Components,
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": _operation_id(function.name, method, route.methods, route.path),
        "tags": [app.name],
        "parameters": [
            *_path_parameters(route.segments, _described(route, function, components)),
            *_query_parameters(route, function, components),
            *_header_parameters(route),
        ],
        "responses": _responses(route, function, components),
    }
    if function.summary:
        found["summary"] = function.summary
    if route.auth is not None:
        found["security"] = [{"token": []}]
        found["description"] = f"Needs a token good for `{route.auth.scope}`."
    if isinstance(route, Webhook):
        found["description"] = f"Signed as `{route.signature.__struct_config__.tag}` says."
    if method not in _BODYLESS:
        found["requestBody"] = _body(route, function, components)
    return found


def _operation_id(name: str, method: str, methods: tuple[str, ...], path: str) -> str:
    # One function may have several routes; where their words are the same, `_number` distinguishes them.
    slug = re.sub(r"[^a-z0-9]+", "_", path.lower()).strip("_")
    return f"{name}.{method.lower()}.{slug}"


def _path_parameters(
    segments: tuple[Segment, ...], described: dict[str, Any]
) -> list[dict[str, Any]]:
    """The names in the braces, each as the route's type says, else as its kind."""
    # The type is more exact than the kind: it may have bounds and a description.
    known = described.get("properties", {}) if described else {}
    return [
        {
            "name": each.name,
            "in": "path",
            "required": True,
            "schema": known.get(each.name, _KINDS[each.kind]),
        }
        for each in segments
        if each.name
    ]


def _described(
    route: Http | Webhook, function: FunctionSpec, components: Components
) -> dict[str, Any]:
    """The schema of a value that the path and the query make together; empty where there is a body."""
    # With a body the path's values are not part of the query's type.
    if route.query_schema is None or not _BODYLESS.issuperset(route.methods):
        return {}
    return components.resolve(components.lift(route.query_schema, function.app))


def _query_parameters(
    route: Http | Webhook, function: FunctionSpec, components: Components
) -> list[dict[str, Any]]:
    if route.query_schema is None:
        return []
    whole = components.resolve(components.lift(route.query_schema, function.app))
    in_path = {each.name for each in route.segments if each.name}
    required = set(whole.get("required", ()))
    return [
        {"name": name, "in": "query", "required": name in required, "schema": schema}
        for name, schema in whole.get("properties", {}).items()
        if name not in in_path
    ]


def _header_parameters(route: Http | Webhook) -> list[dict[str, Any]]:
    names = [name for name in route.headers if name not in _SAID_ELSEWHERE]
    # Read by the platform for every route, whether or not the handler takes it.
    if isinstance(route, Http) and "idempotency-key" not in names:
        names.append("idempotency-key")
    return [
        {"name": name, "in": "header", "required": False, "schema": {"type": "string"}}
        for name in names
    ]


def _body(route: Http | Webhook, function: FunctionSpec, components: Components) -> dict[str, Any]:
    # OpenAPI describes JSON with a schema; other bodies only have a media type.
    if route.codec != "json":
        media = "text/plain" if route.codec == "text" else "application/octet-stream"
        return {"required": True, "content": {media: {"schema": {"type": "string"}}}}
    schema = {} if route.schema is None else components.lift(route.schema, function.app)
    required = route.schema is not None or isinstance(route, Webhook)
    return {"required": required, "content": {"application/json": {"schema": schema}}}


def _responses(
    route: Http | Webhook, function: FunctionSpec, components: Components
) -> dict[str, Any]:
    if route.mode == "async":
        good = {
            "202": {
                "description": "Kept; the function will have it.",
                "content": {"application/json": {"schema": _ref("Accepted")}},
            }
        }
    else:
        answers = (isinstance(route, Http) and route.answers) or {200: Answer()}
        describe = _answer_in_parts if route.mode == "live" else _answer
        good = {
            str(status): describe(status, answer, function, components)
            for status, answer in sorted(answers.items())
        }
    # `default`, not a list of statuses: any of them is a problem document (RFC 9457).
    return {**good, "default": _problem()}


def _answer_in_parts(
    status: int, answer: Answer, function: FunctionSpec, components: Components
) -> dict[str, Any]:
    """As `_answer`, with the type of each part, for which OpenAPI 3.1 has no word."""
    found = _answer(status, answer, function, components)
    if answer.media == "application/json":
        part = found["content"][answer.media]["schema"]
        stream = {"schema": {"type": "string"}, **({"x-item-schema": part} if part else {})}
        # The client chooses one by `Accept`.
        found["content"] = {"application/x-ndjson": stream, "text/event-stream": stream}
    if status == 200:
        found["description"] = "What the function yields, as it comes; whole only if committed."
    return found


def _answer(
    status: int, answer: Answer, function: FunctionSpec, components: Components
) -> dict[str, Any]:
    said: dict[str, Any] = {"description": _described_status(status)}
    if answer.media == problem.MEDIA:
        said["content"] = {problem.MEDIA: {"schema": _ref("Problem")}}
    elif answer.media:
        schema = {} if answer.schema is None else components.lift(answer.schema, function.app)
        said["content"] = {answer.media: {"schema": schema}}
    return said


def _described_status(status: int) -> str:
    if status == 200:
        return "What the function answered, once that was committed."
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        # Authors may answer with statuses that Python has no name for.
        return f"Status {status}"


def _passed(
    app: AppSpec, proxy: Proxy, method: str, segments: tuple[Segment, ...]
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": _operation_id(app.name, method, proxy.methods, proxy.path),
        "tags": [app.name],
        "summary": "Passed on to another service, with all that lies beneath.",
        "parameters": _path_parameters(segments, {}),
        "responses": {"default": {"description": "What the service answered."}},
    }
    if proxy.auth is not None:
        found["security"] = [{"token": []}]
    return found


def _problem() -> dict[str, Any]:
    return {
        "description": "It was refused, or failed.",
        "content": {"application/problem+json": {"schema": _ref("Problem")}},
    }


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}
