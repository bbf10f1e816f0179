"""HTTP as a handler sees it: the request behind an event, and a reply with a status and headers.

An event that came by `Http` or `Webhook` has the body as its value; `Request.of(event)` is the rest.
A handler that answers something else than 200 with JSON returns a `Reply`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Generic

import msgspec

from headrace.model.codec import encode_json
from headrace.model.errors import Invalid, Misuse
from headrace.model.problem import MEDIA, Problem, filled_in
from headrace.model.reply import WireReply, pack_reply
from headrace.sdk.event import Event
from headrace.sdk.type_variables import P

_HEADER = re.compile(r"[A-Za-z0-9-]{1,64}")
_PREFIX = "headrace-http-header-"
_KEPT = frozenset({"content-length", "transfer-encoding", "connection", "date", "server"})


class Request(msgspec.Struct, Generic[P], kw_only=True):
    """A request.

    Attributes:
        method: Such as `POST`.
        path: As it was asked for, still percent-encoded.
        params: What stands in the braces of the path, by name, as its kind. In a handler that
            takes a `request: Request[Params]`, that type, with the query's parameters too.
        query: The query's parameters, by name, typed where the route says so; one that came several
            times is a list.
        headers: Those the route names, in small letters; all but a few in a decorator function. One that
            came several times is joined by `, ` (cookies by `; `).
        body: The raw body; only in a decorator function.
        client: The address of who asks, as the node sees it.
    """

    method: str
    path: str
    params: P = msgspec.field(default_factory=dict)  # type: ignore[assignment]  # where `P` is a dict
    query: dict[str, Any] = {}
    headers: dict[str, str] = {}
    body: bytes = b""
    client: str = ""

    @classmethod
    def of(cls, event: Event[Any], params: Any = None) -> Request[Any]:
        """The request that brought `event`.

        Args:
            event: An event that came by a route.
            params: A type for the path's and the query's parameters together; None leaves those of
                the path in a dict.

        Raises:
            Misuse: It did not come by HTTP.
            Invalid: Its parameters are not of that type.
        """
        given = event.headers
        if "headrace-http-method" not in given:
            raise Misuse(f"`{event.position}` did not come by a route; it has no request")
        in_path = msgspec.json.decode(given.get("headrace-http-params", "{}"))
        query = msgspec.json.decode(given.get("headrace-http-query", "{}"))
        return cls(
            method=given["headrace-http-method"],
            path=given["headrace-http-path"],
            params=in_path if params is None else _opened({**query, **in_path}, params),
            query=query,
            headers={
                name.removeprefix(_PREFIX): value
                for name, value in given.items()
                if name.startswith(_PREFIX)
            },
            client=given.get("headrace-http-client", ""),
        )


def _opened(given: dict[str, Any], as_type: Any) -> Any:
    try:
        return msgspec.convert(given, as_type, strict=False)
    except msgspec.ValidationError as error:
        raise Invalid(f"the parameters of the request: {error}") from error


class Reply:
    """An answer that is more than a JSON value.

    The types of its values stand in `responses=` of the route, by status.

    Attributes:
        value: The body: any value as JSON; `bytes` and `str` stay as they are where `media` is
            given. A `Problem` is completed from the status.
        status: From 200 to 599.
        headers: Response headers.
        media: The body's media type.
    """

    __slots__ = ("headers", "media", "status", "value")

    def __init__(
        self,
        value: Any = None,
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        media: str | None = None,
    ) -> None:
        if not 200 <= status <= 599:
            raise Invalid(f"`Reply(status={status!r})` is not a final status; use 200 to 599")
        self.value: Any = filled_in(value, status) if isinstance(value, Problem) else value
        self.status = status
        self.headers = {name.lower(): text for name, text in (headers or {}).items()}
        for name, text in self.headers.items():
            if not _HEADER.fullmatch(name) or name in _KEPT:
                raise Invalid(
                    f"`Reply` cannot set the header `{name:.64}`; the HTTP server sets it, or it is not a valid name"
                )
            if any(ord(each) < 32 or ord(each) > 255 for each in text):
                raise Invalid(
                    f"the header `{name}` of a `Reply` is not a single line of Latin text"
                )
        if media is None:
            media = _media_of(value)
        if any(ord(each) < 32 or ord(each) > 126 for each in media):
            raise Invalid("the `media` of a `Reply` is not a media type")
        self.media = media

    def __repr__(self) -> str:
        return f"Reply({self.value!r}, status={self.status})"

    @property
    def body(self) -> bytes:
        """The body as bytes."""
        if isinstance(self.value, (bytes, bytearray, memoryview)):
            return bytes(self.value)
        if isinstance(self.value, str) and self.media != "application/json":
            return self.value.encode()
        if self.value is None and self.status in {204, 304}:
            return b""
        return encode_json(self.value)

    def pack(self) -> bytes:
        """For the host."""
        return pack_reply(WireReply(self.status, self.headers, self.media, self.body))


def _media_of(value: object) -> str:
    if isinstance(value, bytes):
        return "application/octet-stream"
    return MEDIA if isinstance(value, Problem) else "application/json"
