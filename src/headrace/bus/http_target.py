"""The HTTP target: one event, one POST; the answer decides what becomes of the event.

In: an invocation of one event. Out: success, a failure worth another attempt, or one that is not.
How a request is really made is a port, `Post`, so that tests can stand in for the other side.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit, urlunsplit

import msgspec

from headrace.bus.router import REPLAY_HEADER
from headrace.client.http_pool import HttpPool, ServiceRequest
from headrace.model.errors import Misuse, Unavailable
from headrace.model.event import Event
from headrace.model.invocation import BatchInvocation
from headrace.model.outcome import Cause, Outcome, Returned
from headrace.model.triggers.bus import HttpTarget
from headrace.model.webhook_signature import Secret
from headrace.security.secrets import Secrets

# The body is not used; a target that sends an endless one must not fill memory.
MAX_ANSWER = 64 << 10
# Request Timeout, Too Early, Too Many Requests (RFC 9110, 8470, 6585): the same request may
# succeed later.
_TRY_AGAIN = frozenset([408, 425, 429])


class HttpRequest(msgspec.Struct, frozen=True):
    """A POST that is to be made."""

    url: str
    headers: dict[str, str]
    body: bytes
    timeout: float


Post = Callable[[HttpRequest], Awaitable[int]]
"""Makes a request and gives the answer's status.

Raises:
    Unavailable: There was no answer.
"""


class HttpPoster:
    """The handler of an HTTP forward's internal function."""

    def __init__(self, target: HttpTarget, post: Post, secrets: Secrets) -> None:
        self._target = target
        self._post = post
        self._secrets = secrets

    async def __call__(self, invocation: BatchInvocation) -> Outcome:
        """Send the invocation's events, of which there is one, in order."""
        for event in (event for chunk in invocation.chunks for event in chunk.events()):
            try:
                request = self._request(event, invocation)
            # A secret without a value: an operator can set it, so the event is tried again.
            except Misuse as error:
                return Returned(error=Cause("Misuse", str(error)))
            try:
                status = await self._post(request)
            except Unavailable as error:
                why = f"`{self._target.url}` gave no answer: {error}"
                return Returned(error=Cause("NoAnswer", why))
            if not 200 <= status < 300:
                # Other statuses of 300 and 400 would be the same next time, so the event is a dead
                # letter at once.
                again = status >= 500 or status in _TRY_AGAIN
                why = f"`{self._target.url}` answered {status}"
                return Returned(error=Cause(f"Http{status}", why, retryable=again))
        return Returned()

    def _request(self, event: Event, invocation: BatchInvocation) -> HttpRequest:
        # The same at every attempt, so that a target can recognise a repetition.
        ident = event.id or invocation.key
        moment = datetime.fromtimestamp(event.time_or(invocation.now) / 1e6, UTC)
        headers = {
            "content-type": "application/json",
            "user-agent": "headrace",
            "ce-specversion": "1.0",
            "ce-id": _safe(ident),
            "ce-source": _safe(event.source or ""),
            "ce-type": _safe(event.type or "headrace.event"),
            "ce-time": moment.isoformat().replace("+00:00", "Z"),
            "idempotency-key": _safe(ident),
        }
        if event.headers and REPLAY_HEADER in event.headers:
            headers[REPLAY_HEADER] = _safe(event.headers[REPLAY_HEADER])
        for name, value in self._target.headers.items():
            if isinstance(value, Secret):
                value = self._secrets.header(value)
            # The author's headers last: they may replace ours. Lower case, or a name could be sent
            # twice.
            headers[name.lower()] = value
        return HttpRequest(self._target.url, headers, event.value, self._target.timeout)


def posts_over(outgoing: HttpPool) -> Post:
    """Requests made for real, over the node's connections."""

    async def post(request: HttpRequest) -> int:
        headers = tuple((name.encode(), value.encode()) for name, value in request.headers.items())
        parts = urlsplit(request.url)
        # Origin form (RFC 9112, section 3.2.1): path and query alone; a fragment is never sent.
        target = urlunsplit(("", "", parts.path or "/", parts.query, ""))
        ask = ServiceRequest(
            f"{parts.scheme}://{parts.netloc}",
            "POST",
            target,
            headers,
            request.body,
            seconds=request.timeout,
            max_bytes=MAX_ANSWER,
            keeps_body=False,
        )
        return (await outgoing.ask(ask)).status

    return post


def _safe(text: str) -> str:
    """Text as a header may hold it (CloudEvents HTTP binding 1.0.2, section 3.1.3.2)."""
    return quote(text, safe="!#$&'()*+,-./:;<=>?@[\\]^_`{|}~")
