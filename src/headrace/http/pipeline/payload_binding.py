"""A request at an author's route -> the event its function gets. Pure.

In: the route, the request's parts and its body. Out: a payload that is what the route's types say,
the headers that carry the rest, and the key. A mismatch names its place as a JSON Pointer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from headrace.http.request import IncomingRequest
from headrace.model.codec import encode_json, validate_json
from headrace.model.errors import Invalid, TooLarge
from headrace.model.jsonschema import coerce, names_in
from headrace.model.policy import MAX_HEADER_BYTES, MAX_KEY_BYTES
from headrace.model.triggers.http import Http, Webhook
from headrace.patterns.schema_validation import Checker
from headrace.security.tokens import is_ours

_BODYLESS = frozenset({"GET", "HEAD", "DELETE"})
_json = msgspec.json.Decoder()


def query_texts(request: IncomingRequest) -> dict[str, list[str]]:
    """The query's parameters, each with every text it was given.

    Raises:
        Invalid: It cannot be read.
    """
    found: dict[str, list[str]] = {}
    for name, text in request.query_pairs():
        found.setdefault(name, []).append(text)
    return found


def plain_query(texts: Mapping[str, list[str]]) -> dict[str, Any]:
    """The query where it has no type: a text, or a list of them where a parameter came several times."""
    return {name: given[0] if len(given) == 1 else given for name, given in texts.items()}


def typed_query(
    route: Http | Webhook,
    of: Checker | None,
    texts: Mapping[str, list[str]],
    params: Mapping[str, Any],
) -> dict[str, Any]:
    """The query as the route's type says; a route without a body takes the path's names along.

    Raises:
        Invalid: It is not of that type.
    """
    schema = route.query_schema
    if schema is None or of is None:
        return plain_query(texts)
    found = coerce(schema, texts)
    if _BODYLESS.issuperset(route.methods):
        # What stands in the path wins: a query cannot pretend to be another's path.
        # What the type says of it goes before its kind in the path.
        typed = coerce(schema, {name: [str(value)] for name, value in params.items()})
        known = names_in(schema)
        found |= {name: typed[name] if name in known else params[name] for name in params}
    of.check(found)
    return found


def payload_of(
    route: Http | Webhook,
    of: Checker | None,
    method: str,
    body: bytes,
    query: Mapping[str, Any],
    params: Mapping[str, Any],
) -> bytes:
    """The event's value.

    Raises:
        Invalid: The body is not what the route takes.
    """
    if isinstance(route, Http) and (method in _BODYLESS or _BODYLESS.issuperset(route.methods)):
        if route.query_schema is not None and _BODYLESS.issuperset(route.methods):
            return encode_json(query)
        return encode_json({**query, **params})
    if route.codec == "bytes":
        return body
    if route.codec == "text":
        try:
            text = body.decode()
        except UnicodeDecodeError as error:
            raise Invalid(f"the body is not UTF-8 text: {error}") from error
        if of is not None and isinstance(route, Http):
            of.check(text)
        return body
    if not body.strip():
        if route.schema is None and isinstance(route, Http):
            return b"null"
        raise Invalid("the body is empty, and this route takes JSON; send a JSON value")
    value = validate_json(body)
    # A signed message is kept even where its type has changed: as a dead letter it can be looked at.
    if of is not None and isinstance(route, Http):
        of.check(value, body)
    return body


def carried(
    route: Http | Webhook,
    request: IncomingRequest,
    params: Mapping[str, Any],
    query: Mapping[str, Any],
) -> dict[str, str]:
    """The headers that carry the rest of the request to the function; see `sdk/request`.

    Raises:
        TooLarge: They take too many bytes.
    """
    found = {
        "headrace-http-method": request.method,
        "headrace-http-path": request.path,
        "headrace-http-client": request.client,
    }
    if params:
        found["headrace-http-params"] = encode_json(params).decode()
    if query:
        found["headrace-http-query"] = encode_json(query).decode()
    for name in route.headers:
        text = request.header(name)
        # What lets a client in here is not the function's to use.
        if text is not None and not (name == "authorization" and is_ours(text.encode())):
            found[f"headrace-http-header-{name}"] = text
    if len("".join(found.values())) + len("".join(found)) > MAX_HEADER_BYTES:
        raise TooLarge(
            f"the path, the query and the headers this route keeps take more than "
            f"{MAX_HEADER_BYTES:,} bytes; put it into the body"
        )
    return found


def picked(
    pick: str,
    request: IncomingRequest,
    params: Mapping[str, Any],
    query: Mapping[str, Any],
    payload: bytes,
) -> str | None:
    """The part of a request that `key=` or `sticky=` names; None where it has none.

    Raises:
        Invalid: It is longer than a key may be.
    """
    place, _, name = pick.partition(".")
    found: Any = None
    if place == "client":
        found = request.client
    elif place == "path":
        found = params.get(name)
    elif place == "query":
        found = query.get(name)
    elif place == "header":
        found = request.header(name.lower())
    elif place == "body":
        try:
            found = _json.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        for part in name.split("."):
            found = found.get(part) if isinstance(found, dict) else None
    if found is None or isinstance(found, (dict, list)):
        return None
    text = found if isinstance(found, str) else encode_json(found).decode()
    if len(text) > MAX_KEY_BYTES:
        raise Invalid(f"`{pick}` has {len(text)} characters; a key has at most {MAX_KEY_BYTES}")
    return text
