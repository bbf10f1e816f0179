"""The platform's own paths as an OpenAPI 3.1 document, made from the table that answers them.

The authors' routes have a document of their own, `topology/openapi.py`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from functools import cache
from typing import Any, Final

import msgspec

from headrace.http.context import ApiContext, Handler
from headrace.http.pipeline.api_routes import ApiRoute, OwnSteps
from headrace.http.request import IncomingRequest
from headrace.http.response import Response, json_response
from headrace.http.router import Router
from headrace.model.problem import SCHEMA as PROBLEM
from headrace.model.route import API_PREFIX
from headrace.security.access import scope_of

_TEXT: Final = {"type": "string"}
_WHOLE: Final = {"type": "integer", "minimum": 0}
QUERY: Final[dict[str, tuple[dict[str, Any], str]]] = {
    "after": (_TEXT, "Where the page before ended, as its answer says."),
    "at": ({"type": "string", "format": "date-time"}, "When messages are delivered, for a queue."),
    "cursor": (_TEXT, "Where the page before ended, by partition, as its answer says."),
    "delay": (
        _TEXT,
        "How long messages wait before they are delivered, such as `24h`; for a queue.",
    ),
    "envelope": (_TEXT, "`1` says that each line of the body is an envelope."),
    "from": (_TEXT, "Where to begin: `earliest`, `latest`, an offset or a time."),
    "function": (_TEXT, "Only what is this function's, by its full name `app.function`."),
    "group": (_TEXT, "The consumer group whose messages are shown."),
    "id": (_TEXT, "The id of the event, by which a repetition is dropped."),
    "key": (_TEXT, "The key of the events; those of one key stay in order."),
    "limit": (_WHOLE, "How many at most."),
    "offset": (_WHOLE, "The first offset, with `partition`."),
    "partition": (_WHOLE, "Only this partition."),
    "prefix": (_TEXT, "Only keys that begin so."),
    "priority": (_WHOLE, "Of the messages, for a queue that has priorities."),
    "timeout": (_TEXT, "How long the caller waits for the answer, such as `5s`."),
    "wait": (_TEXT, "How long to wait for the first record, such as `20s`."),
    "warning": (_WHOLE, "From how many bytes on a replication slot is reported to be behind."),
}
"""What each query parameter means, wherever it is taken: its schema and its description."""

_BRACES = re.compile(r"\{(\w+)\}")


def api_document(table: Router[ApiRoute]) -> Handler:
    """A handler that answers with the document of the table, made at the first request."""
    made = cache(lambda: json_response(document_of(table)))

    async def describe(_: ApiContext, __: IncomingRequest, ___: tuple[str, ...]) -> Response:
        """The platform's own paths as an OpenAPI 3.1 document."""
        return made()

    return describe


def document_of(table: Router[ApiRoute]) -> dict[str, Any]:
    """The document, without the paths at the root."""
    rows = [row for row in table.rows() if row[1].startswith(API_PREFIX)]
    bodies = [route.body for _, _, route in rows if route.body is not None]
    schemas, components = msgspec.json.schema_components(
        bodies, ref_template="#/components/schemas/{name}"
    )
    body_schemas = dict(zip(bodies, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for method, pattern, route in rows:
        paths.setdefault(pattern, {})[method.lower()] = _operation(
            method, pattern, route, body_schemas
        )
    return {
        "openapi": "3.1.0",
        "info": {"title": "Headrace", "version": "1"},
        "paths": paths,
        "components": {
            "schemas": {**components, "Problem": PROBLEM},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(
    method: str, pattern: str, route: ApiRoute, bodies: dict[type, dict[str, Any]]
) -> dict[str, Any]:
    answer = route.answer.compile if isinstance(route.answer, OwnSteps) else route.answer
    summary, _, more = (inspect.getdoc(answer) or "").partition("\n")
    scope = scope_of(method, pattern.split("/")[1:])
    proof = f"Scope: `{scope}`." if scope else "Open to everybody."
    found: dict[str, Any] = {
        "operationId": f"{answer.__module__.rpartition('.')[2]}.{answer.__name__}",
        "summary": summary.rstrip("."),
        "description": f"{more.strip()}\n\n{proof}".strip(),
        "parameters": [*_path(pattern), *_query(route.query or ())],
        "responses": {
            "2XX": {"description": "What the page of the HTTP API says."},
            "default": {
                "description": "Why not.",
                "content": {
                    "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
                },
            },
        },
    }
    if scope:
        found["security"] = [{"token": []}]
    if method == "POST":
        schema = {} if route.body is None else bodies[route.body]
        found["requestBody"] = {"content": {"application/json": {"schema": schema}}}
    return found


def _path(pattern: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": _TEXT}
        for name in _BRACES.findall(pattern)
    ]


def _query(names: Iterable[str]) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "query", "schema": QUERY[name][0], "description": QUERY[name][1]}
        for name in sorted(names)
    ]
