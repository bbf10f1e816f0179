"""Triggers of the HTTP server, as authors write them: `Http`, `Webhook`, and what goes with a route.

In: what the author wrote; what cannot work is refused at once, naming the setting. The author's
types are turned into JSON Schema by the sdk before a spec leaves the author's process.
"""

from __future__ import annotations

import re
from typing import Any, Final, Literal

import msgspec
from msgspec.structs import force_setattr

from headrace.model.durations import MaybeSeconds, Seconds, keep_seconds
from headrace.model.errors import Misuse
from headrace.model.policy import MAX_BATCH_BYTES, MAX_EVENT_BYTES
from headrace.model.policy_struct import PolicyStruct, default
from headrace.model.route import Segment, segments_of
from headrace.model.sizes import Bytes, keep_bytes
from headrace.model.webhook_signature import Signature

METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
MAX_TIMEOUT_S: Final = 3_600.0
MAX_HEADERS: Final = 32
MAX_REMEMBERED_S: Final = 30 * 86_400.0
_PICK = re.compile(r"(path|query|body|header)\.[A-Za-z0-9_.-]{1,128}|client")
_HEADER = re.compile(r"[A-Za-z0-9-]{1,64}")
_SCOPE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._:/-]{0,199}")
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?")
_UPSTREAM = re.compile(r"https?://(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?(/[^?#\s]*)?")


class Bearer(PolicyStruct, frozen=True, tag="bearer"):
    """Only who brings a token of this node (`Authorization: Bearer ...`) comes in.

    Attributes:
        scope: What the token must be good for; tokens are made by `headrace token create`.
    """

    scope: str

    def __post_init__(self) -> None:
        """Refuse what is not a scope.

        Raises:
            Misuse: Naming it.
        """
        check_scope(self.scope)


class Cors(PolicyStruct, frozen=True, tag="cors"):
    """Pages of other origins may call the route from a browser.

    Attributes:
        origins: Such as `https://shop.example`, or `*` for all (not with `credentials`).
        headers: Request headers they may send besides the usual ones.
        expose: Response headers they may read.
        credentials: Whether cookies and tokens may come along.
        max_age: How long a browser may remember the answer.
    """

    origins: str | tuple[str, ...]
    headers: str | tuple[str, ...] = ("authorization", "content-type", "idempotency-key")
    expose: str | tuple[str, ...] = ()
    credentials: bool = False
    max_age: Seconds = default(600)

    def __post_init__(self) -> None:
        """Refuse what browsers would, and what would let everybody in by accident.

        Raises:
            Misuse: Naming the setting and the fix.
        """
        for name in ("origins", "headers", "expose"):
            given: Any = getattr(self, name)
            force_setattr(self, name, (given,) if isinstance(given, str) else tuple(given))
        for origin in self.origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise Misuse(
                    f'`Cors({origin!r})` is not an origin; write one such as `"https://shop.example"`'
                )
        if not self.origins or ("*" in self.origins and self.credentials):
            raise Misuse("`Cors` needs its origins by name where `credentials=True`; list them")
        for header in (*self.headers, *self.expose):
            _check_header(header, "Cors")
        keep_seconds(self, "max_age", low=0, high=MAX_REMEMBERED_S)


class PerClient(PolicyStruct, frozen=True, tag="per-client"):
    """So many requests of one client; more are answered 429 with `Retry-After`.

    Attributes:
        requests: How many in `per`.
        per: A time, such as `"1m"`.
        burst: How many at once after a pause; `requests` where nothing is said.
    """

    requests: float
    per: Seconds = default(1.0)
    burst: int | None = None

    def __post_init__(self) -> None:
        """Keep the time as seconds.

        Raises:
            Misuse: Naming the setting and the fix.
        """
        keep_seconds(self, "per", low=0.001, high=86_400)
        if not 0 < self.requests <= 1e6:
            raise Misuse(f"`PerClient({self.requests!r})`: use more than 0 and at most 1,000,000")
        if self.burst is not None and not 1 <= self.burst <= 1_000_000:
            raise Misuse(f"`PerClient(burst={self.burst!r})`: use 1 to 1,000,000")

    @property
    def speed(self) -> float:
        """Requests a second."""
        return self.requests / self.per

    @property
    def depth(self) -> float:
        """Requests at once."""
        return float(self.burst) if self.burst is not None else max(self.requests, 1.0)


class Legacy(PolicyStruct, frozen=True, tag="legacy"):
    """A share of a route's requests goes to the system it replaces.

    Attributes:
        upstream: Its address, such as `http://old.example:8080`; the path is kept.
        share: From 0 (none) to 1 (all).
        sticky: What keeps its choice, so that one customer always meets the same system:
            `path.NAME`, `query.NAME`, `header.NAME` or `client`; by chance where nothing is said.
        timeout: The time until its answer must be whole.
    """

    upstream: str
    share: float = 1.0
    sticky: str = ""
    timeout: Seconds = default(30.0)

    def __post_init__(self) -> None:
        """Refuse what is not an address and no share.

        Raises:
            Misuse: Naming the setting and the fix.
        """
        check_upstream(self.upstream, "Legacy")
        if not 0 <= self.share <= 1:
            raise Misuse(f"`Legacy(share={self.share!r})`: use 0 (none) to 1 (all)")
        if self.sticky:
            _check_pick(self.sticky, "Legacy", "sticky", body=False)
        keep_seconds(self, "timeout", low=0.001, high=MAX_TIMEOUT_S)


class Answer(PolicyStruct, frozen=True):
    """Answer of a route with one status.

    Attributes:
        schema: Of the JSON body; None where any will do.
        media: The body's media type; "" where there is no body.
    """

    schema: dict[str, Any] | None = None
    media: str = "application/json"


class Http(PolicyStruct, frozen=True, tag="http"):
    """A request comes in at a path.

    Attributes:
        method: `GET`, `POST`, `PUT`, `PATCH` or `DELETE`; several in a tuple.
        path: Such as `/orders/{id}`; also `{id:int}`, `{id:float}`, `{id:decimal}`,
            `{id:uuid}`, `{day:date}`, `{at:datetime}`, `{rest:path}`.
        mode: `sync` answers with what the function returned, once that is committed; `live` sends
            on what its handler yields, value by value, and ends the answer with the commit; `async`
            keeps the request in the log and answers 202 with a status URL.
        body: The type the body must be; the handler's own where nothing is said. `bytes` and `str`
            take any body as it is.
        query: The type of the query's parameters: a msgspec Struct, dataclass or TypedDict.
        auth: Who may come in; None means everybody who reaches the node.
        cors: Which other pages may call it from a browser.
        rate: How often one client may.
        max_bytes: Of the body, also unpacked.
        timeout: The time until the answer; the function's own where it is shorter.
        headers: Request headers handed to the function.
        key: What keeps requests in order (`async`): `path.NAME`, `query.NAME`, `header.NAME` or
            `body.NAME`.
        dedupe: How long an `Idempotency-Key` is remembered (`async`; 24 h in the other modes).
        legacy: The system it replaces step by step.
        responses: The type of the body by status, such as `{201: Order, 404: Problem}`; None for no
            body. With it, a `Reply` of another status is not an answer of this route.
        schema: Of the body; filled in from `body`.
        query_schema: Of the query; filled in from `query`.
        codec: How the body is read; filled in.
        answers: By status; filled in from `responses` and the handler's return annotation.
        any_status: Whether it may answer with a status that is not in `answers`; filled in.
    """

    method: str | tuple[str, ...]
    path: str
    mode: Literal["sync", "live", "async"] = "sync"
    body: Any = None
    query: Any = None
    auth: Bearer | None = None
    cors: Cors | None = None
    rate: PerClient | None = None
    max_bytes: Bytes = default(MAX_EVENT_BYTES)
    timeout: MaybeSeconds = default(None)
    headers: str | tuple[str, ...] = ()
    key: str = ""
    dedupe: Seconds = default(86_400.0)
    legacy: Legacy | None = None
    responses: Any = None
    schema: dict[str, Any] | None = None
    query_schema: dict[str, Any] | None = None
    codec: Literal["json", "bytes", "text"] = "json"
    answers: dict[int, Answer] = msgspec.field(default_factory=dict)
    any_status: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot be served.

        Raises:
            Misuse: Naming the setting and the fix.
        """
        given: Any = self.method
        methods = (given,) if isinstance(given, str) else tuple(given)
        what = f"Http({given!r}, {self.path!r})"
        for method in methods:
            if method not in METHODS:
                raise Misuse(f"`{what}`: `{method}` is not a method here; use {', '.join(METHODS)}")
        if not methods:
            raise Misuse(f'`{what}` has no method; write `"POST"`')
        force_setattr(self, "method", methods)
        segments_of(self.path, what)
        if self.mode not in {"sync", "live", "async"}:
            raise Misuse(f'`{what}`: `mode={self.mode!r}`; use "sync", "live" or "async"')
        _check_common(self, what)
        if self.legacy is not None:
            _check_named(self.legacy.sticky, what, "sticky", self.segments)
        limit = f"`timeout=` of `{what}`"
        keep_seconds(self, "timeout", low=0.001, high=MAX_TIMEOUT_S, what=limit)
        if self.key and self.mode != "async":
            raise Misuse(f'`{what}`: `key=` orders what is kept, so it needs `mode="async"`')
        _check_responses(self.responses, self.mode, what)

    @property
    def methods(self) -> tuple[str, ...]:
        """Every method it answers."""
        found: Any = self.method
        return tuple(found)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The parts of its path."""
        return segments_of(self.path, self.path)


class Webhook(PolicyStruct, frozen=True, tag="webhook"):
    """Another system reports what happened, signed. Each message becomes one event, once.

    Attributes:
        path: Such as `/hooks/github`.
        signature: The sender's scheme with its secrets.
        body: As of `Http`; the signature is checked over the raw bytes first.
        rate: How often one client may call, good signatures or bad.
        max_bytes: Of the body, also unpacked.
        headers: Request headers handed to the function.
        key: What keeps messages in order: `path.NAME`, `query.NAME`, `header.NAME`, `body.NAME`.
        dedupe: How long a message's id is remembered: a repetition becomes no event.
        schema: Filled in from `body`.
        codec: Filled in.
    """

    path: str
    signature: Signature
    body: Any = None
    rate: PerClient | None = None
    max_bytes: Bytes = default(1 << 20)
    headers: str | tuple[str, ...] = ()
    key: str = ""
    dedupe: Seconds = default(3 * 86_400.0)
    schema: dict[str, Any] | None = None
    codec: Literal["json", "bytes", "text"] = "json"

    def __post_init__(self) -> None:
        """Refuse what cannot be served.

        Raises:
            Misuse: Naming the setting and the fix.
        """
        what = f"Webhook({self.path!r})"
        segments_of(self.path, what)
        scheme: Any = self.signature
        if not isinstance(scheme, Signature):
            raise Misuse(
                f"`{what}` needs the sender's signature, for anyone who knows the address could say "
                'anything; write `signature=GitHub(secret="GITHUB_HOOK")` (or Stripe, Slack, '
                "StandardWebhooks, Hmac)"
            )
        _check_common(self, what)
        tolerance = float(getattr(self.signature, "tolerance", 0.0))
        if self.dedupe < 2 * tolerance:
            raise Misuse(
                f"`{what}`: `dedupe={self.dedupe}` forgets a message before its signature is too "
                f"old; use {2 * tolerance:g} or more"
            )

    methods = ("POST",)
    mode = "async"
    auth = None
    cors = None
    timeout = None
    legacy = None
    query_schema = None

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The parts of its path."""
        return segments_of(self.path, self.path)


class Proxy(msgspec.Struct, frozen=True, kw_only=True):
    """A path whose requests go to an upstream service, shaped on the way by functions.

    Attributes:
        path: The path and all that lies beneath it.
        upstream: The service's address; what follows `path` is put behind it.
        before: The full name of the function that shapes requests, "" for none.
        after: The full name of the function that shapes responses, "" for none.
        auth: As of `Http`.
        cors: As of `Http`.
        rate: As of `Http`.
        max_bytes: Of a body, either way.
        timeout: The time until the upstream's answer must be whole.
    """

    path: str
    upstream: str
    before: str = ""
    after: str = ""
    auth: Bearer | None = None
    cors: Cors | None = None
    rate: PerClient | None = None
    max_bytes: Bytes = default(MAX_EVENT_BYTES)
    timeout: Seconds = default(30.0)

    def __post_init__(self) -> None:
        """Refuse what cannot be served.

        Raises:
            Misuse: Naming the setting and the fix.
        """
        what = f"proxy({self.path!r})"
        segments = segments_of(self.path, what)
        if any(segment.kind == "path" for segment in segments) or self.path.endswith("/"):
            raise Misuse(f'`{what}` takes all beneath its path already; write it like `"/legacy"`')
        check_upstream(self.upstream, "proxy")
        keep_bytes(self, "max_bytes", low=1, high=MAX_BATCH_BYTES, what=f"`max_bytes=` of `{what}`")
        limit = f"`timeout=` of `{what}`"
        keep_seconds(self, "timeout", low=0.001, high=MAX_TIMEOUT_S, what=limit)

    methods = METHODS


def check_scope(scope: object) -> str:
    """The scope of a token or a route.

    Raises:
        Misuse: It is none.
    """
    if not isinstance(scope, str) or not _SCOPE.fullmatch(scope):
        raise Misuse(
            f'`{scope!r}` is not a scope; use letters, digits and `._:/-`, such as "orders:write"'
        )
    return scope


def check_upstream(upstream: object, what: str) -> None:
    """Pass, where it is the address of a service.

    Raises:
        Misuse: It is none.
    """
    if not isinstance(upstream, str) or not _UPSTREAM.fullmatch(upstream):
        raise Misuse(
            f"`{what}`: `{upstream!r}` is not an address; write one such as `http://old.example:8080`"
        )


def _check_responses(given: Any, mode: str, what: str) -> None:
    if given is None:
        return
    if mode == "async":
        raise Misuse(
            f"`{what}`: `responses=` says what a function answers, and with `mode='async'` the node "
            'answers by itself; leave it out, or use `mode="sync"` or `"live"`'
        )
    if not isinstance(given, dict) or not given:
        raise Misuse(f"`{what}`: `responses=` is not a table; write `{{201: Order, 404: Problem}}`")
    for status in given:
        if not isinstance(status, int) or isinstance(status, bool) or not 200 <= status <= 599:
            raise Misuse(f"`{what}`: `responses=` has {status!r}; use a final status, 200 to 599")


def _check_common(route: Http | Webhook, what: str) -> None:
    keep_bytes(route, "max_bytes", low=1, high=MAX_BATCH_BYTES, what=f"`max_bytes=` of `{what}`")
    given: Any = route.headers
    headers = (given,) if isinstance(given, str) else tuple(given)
    if len(headers) > MAX_HEADERS:
        raise Misuse(f"`{what}`: `headers=` names {len(headers)}; at most {MAX_HEADERS}")
    for header in headers:
        _check_header(header, what)
    force_setattr(route, "headers", tuple(header.lower() for header in headers))
    if route.key:
        _check_pick(route.key, what, "key", body=True)
        _check_named(route.key, what, "key", route.segments)
    keep_seconds(
        route,
        "dedupe",
        low=0 if isinstance(route, Http) else 1,
        high=MAX_REMEMBERED_S,
        what=f"`dedupe=` of `{what}`",
    )


def _check_header(header: object, what: str) -> None:
    if not isinstance(header, str) or not _HEADER.fullmatch(header):
        raise Misuse(
            f'`{what}`: `{header!r}` is not a header\'s name; write one such as `"x-tenant"`'
        )


def _check_pick(pick: object, what: str, name: str, *, body: bool) -> None:
    if (
        not isinstance(pick, str)
        or not _PICK.fullmatch(pick)
        or (pick.startswith("body.") and not body)
    ):
        places = "`path.NAME`, `query.NAME`, `header.NAME`, " + (
            "`body.NAME`" if body else "`client`"
        )
        raise Misuse(f"`{what}`: `{name}={pick!r}` names no part of a request; use {places}")


def _check_named(pick: str, what: str, name: str, segments: tuple[Segment, ...]) -> None:
    place, _, part = pick.partition(".")
    names = [segment.name for segment in segments if segment.name]
    if place == "path" and part not in names:
        known = ", ".join(f"`path.{each}`" for each in names) or "no names in braces"
        raise Misuse(f"`{what}`: `{name}={pick!r}`, but the path has {known}")
