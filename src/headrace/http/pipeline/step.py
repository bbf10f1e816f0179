"""What a route's pipeline is made of: a request on its way, the steps before its end, and the end.

A step says from the request's head that it has nothing to do (`idle`). Where nothing else is said it has, and may
wait: an option that somebody adds as a `RouteStep` is never skipped by the fast path, which takes only requests for
which each step is idle or does not wait (`HeadStep`, `BodyStep`). Every request, fast or not, runs the same steps.
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
    """What a step may look at to say that it is idle; an `IncomingRequest` is one."""

    @property
    def method(self) -> str:
        """In capitals."""
        ...

    @property
    def raw_query(self) -> bytes:
        """What stands behind the `?`."""
        ...

    @property
    def headers(self) -> Mapping[bytes, bytes]:
        """By name in small letters."""
        ...

    @property
    def peer(self) -> Peer:
        """Who holds the other end of the connection."""
        ...


class RoutedRequest(msgspec.Struct):
    """A request on its way through the steps of its route, and what they found. Owned by who answers it.

    Attributes:
        request: The request.
        params: What stands in the braces of an author's route.
        methods: Those of the path, for a preflight.
        extra: Headers of the answer besides its own.
        client: The id of the token that was shown; "" without one.
        body: As it came, and once a step has unpacked it, as it was before.
        query: The query, of its type where the route declares one.
        payload: The value of the function's event.
        headers: What the function gets besides the payload.
        event_id: The id of a signed message.
        once: What repetitions of the request have in common; "" for a request without a key.
        digest: Of the request, where it has a key.
        timeout_s: The client's own limit in seconds; None where it has none.
        accept: The media types that the client asks for; "" where none of them is of answers in parts.
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
    """A step of a route. Made once for each deployment, shared by all requests: it keeps nothing of them."""

    def idle(self, head: HeadView) -> bool:
        """Whether it has nothing to do for any request with this head."""
        return False

    @abstractmethod
    async def run(self, routed: RoutedRequest) -> Response | None:
        """Do it; a response ends the request.

        Raises:
            HeadraceError: The request is refused.
        """


class BodyStep(RouteStep):
    """A step that does not wait once the body is here."""

    @abstractmethod
    def take(self, routed: RoutedRequest) -> Response | None:
        """As `run`, without waiting."""

    async def run(self, routed: RoutedRequest) -> Response | None:
        """As `take`."""
        return self.take(routed)


class HeadStep(BodyStep):
    """A step that needs only the head: what it sets is the same for all requests with that head."""


class RouteEnd(ABC):
    """What answers at the end of a route: a call, an append, another service, a handler."""

    @abstractmethod
    async def run(self, routed: RoutedRequest) -> Response:
        """The answer.

        Raises:
            HeadraceError: There is none.
        """


class StartableEnd(RouteEnd):
    """An end that can be started without waiting, and is answered by a callback."""

    @abstractmethod
    def start(self, routed: RoutedRequest, waiter: Waiter) -> StartedCall:
        """Start it.

        Raises:
            HeadraceError: It cannot be started.
        """

    @abstractmethod
    def respond(self, routed: RoutedRequest, answer: bytes) -> Response:
        """The function's answer as a response."""

    @abstractmethod
    def refusal(self, error: CallFailed) -> HeadraceError:
        """What the client gets for a call that failed."""
