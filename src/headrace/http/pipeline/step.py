"""The parts of a route's pipeline: a request in flight, the steps before its end, and the end.

A step decides from the request's head whether it is idle. By default it is not, and may wait: the fast path
never skips an option that is added as a `RouteStep`. It takes only requests for which each step is idle or does
not wait (`HeadStep`, `BodyStep`). Every request, fast or not, runs the same steps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from headrace.delivery.calls.direct import CallFailed, StartedCall
from headrace.http.cors import Headers
from headrace.http.request import IncomingRequest
from headrace.http.response import Response
from headrace.model.errors import HeadraceError
from headrace.runtime.base import Waiter
from headrace.security.access import Peer


class HeadView(Protocol):
    """The part of a request by which a step decides that it is idle; an `IncomingRequest` is one."""

    @property
    def method(self) -> str:
        """In capitals."""
        ...

    @property
    def raw_query(self) -> bytes:
        """The bytes after the `?`."""
        ...

    @property
    def headers(self) -> Mapping[bytes, bytes]:
        """The headers by name, in lower case."""
        ...

    @property
    def peer(self) -> Peer:
        """The peer of the connection."""
        ...


class RoutedRequest(msgspec.Struct):
    """A request in its route's pipeline, with what the steps found. Owned by the task or call that answers it.

    Attributes:
        request: The request.
        params: The path's parameters at an author's route.
        methods: The methods of the path, for a preflight.
        extra: Headers to add to the answer.
        client: The id of the request's token; "" without one.
        body: The body as it was sent; decompressed, once a step has done so.
        query: The query, of its type where the route declares one.
        payload: The value of the function's event.
        headers: The event's headers.
        event_id: The id of a signed message.
        once: The idempotency key, unique among clients and routes; "" without one.
        digest: The digest of the request, where it has a key.
        timeout_s: The client's own timeout in seconds; None without one.
        accept: The `Accept` header; "" where it names no media type of answers in parts.
    """

    request: IncomingRequest
    params: Mapping[str, Any] = {}
    methods: Sequence[str] = ()
    extra: Headers = ()
    client: str = ""
    body: bytes = b""
    query: Mapping[str, Any] = {}
    payload: bytes = b""
    headers: dict[str, str] | None = None
    event_id: str | None = None
    once: str = ""
    digest: bytes = b""
    timeout_s: float | None = None
    accept: str = ""


class RouteStep(ABC):
    """A step of a route. Created once for each deployment and shared by all requests, so it stores nothing of them."""

    def idle(self, head: HeadView) -> bool:
        """Return whether the step has nothing to do for any request with this head."""
        return False

    @abstractmethod
    async def run(self, routed: RoutedRequest) -> Response | None:
        """Run the step; a response ends the request.

        Raises:
            HeadraceError: The request is refused.
        """


class BodyStep(RouteStep):
    """A step that does not wait once the body is complete."""

    @abstractmethod
    def take(self, routed: RoutedRequest) -> Response | None:
        """Run the step without waiting."""

    async def run(self, routed: RoutedRequest) -> Response | None:
        """Run the step as `take` does."""
        return self.take(routed)


class HeadStep(BodyStep):
    """A step that needs only the head: it sets the same for all requests with that head."""


class RouteEnd(ABC):
    """The end of a route, which answers: a call, an append, another service, a handler."""

    @abstractmethod
    async def run(self, routed: RoutedRequest) -> Response:
        """Return the answer.

        Raises:
            HeadraceError: There is none.
        """


class StartableEnd(RouteEnd):
    """An end that can be started without waiting, and answers by a callback."""

    @abstractmethod
    def start(self, routed: RoutedRequest, waiter: Waiter) -> StartedCall:
        """Start the run.

        Raises:
            HeadraceError: It cannot be started.
        """

    @abstractmethod
    def respond(self, routed: RoutedRequest, answer: bytes) -> Response:
        """Convert the function's answer to a response."""

    @abstractmethod
    def refusal(self, error: CallFailed) -> HeadraceError:
        """Return the error that the client gets for a call that failed."""
