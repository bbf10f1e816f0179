"""A request at an author's route -> the event for its function. Pure.

In: the route, the request's parts and its body. Out: a payload of the route's types, the headers that
carry the rest, and the key. A mismatch names its place as a JSON Pointer (RFC 6901).
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
    """Return the query's parameters, each with all its values.

    Raises:
        Invalid: The query cannot be decoded.
    """
    found: dict[str, list[str]] = {}
    for name, text in request.query_pairs():
        found.setdefault(name, []).append(text)
    return found


def plain_query(texts: Mapping[str, list[str]]) -> dict[str, Any]:
    """Return a query without a type: a text for each parameter, or a list where it came several times."""
    return {name: given[0] if len(given) == 1 else given for name, given in texts.items()}


def typed_query(
    route: Http | Webhook,
    of: Checker | None,
    texts: Mapping[str, list[str]],
    params: Mapping[str, Any],
) -> dict[str, Any]:
    """Convert the query to the route's type; for a route without a body, together with the path's parameters.

    Raises:
        Invalid: It is not of that type.
    """
    schema = route.query_schema
    if schema is None or of is None:
        return plain_query(texts)
    found = coerce(schema, texts)
    if _BODYLESS.issuperset(route.methods):
        # Path parameters win, so that a query cannot override the path that access was granted for.
        # A type declared for a parameter is more precise than its kind in the path (`{id:int}`).
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
    """Return the event's value.

    Raises:
        Invalid: The body is not of the route's type.
    """
    # RFC 9110, sections 9.3.1, 9.3.2 and 9.3.5: content of `GET`, `HEAD` and `DELETE` has no
    # defined meaning, and intermediaries drop it. Query and path are the payload.
    if isinstance(route, Http) and (method in _BODYLESS or _BODYLESS.issuperset(route.methods)):
        if route.query_schema is not None and _BODYLESS.issuperset(route.methods):
            # `typed_query` has merged the path's parameters already.
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
    # A signed message is accepted even where the declared type does not fit: a refused sender may
    # give up for good, while a dead letter can be inspected, edited and redriven.
    if of is not None and isinstance(route, Http):
        of.check(value, body)
    return body


def carried(
    route: Http | Webhook,
    request: IncomingRequest,
    params: Mapping[str, Any],
    query: Mapping[str, Any],
) -> dict[str, str]:
    """Return the headers that carry the rest of the request to the function; see `sdk/request`.

    Raises:
        TooLarge: They have too many bytes.
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
        # A token of this node would let the function act as its client.
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
    """Return the part of a request that `key=` or `sticky=` names; None where it has none.

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
    # A request without the part gets no key instead of an error: it is appended to any partition.
    if found is None or isinstance(found, (dict, list)):
        return None
    text = found if isinstance(found, str) else encode_json(found).decode()
    if len(text) > MAX_KEY_BYTES:
        raise Invalid(f"`{pick}` has {len(text)} characters; a key has at most {MAX_KEY_BYTES}")
    return text
