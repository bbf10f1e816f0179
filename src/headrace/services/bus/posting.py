"""The HTTP target: one event, one POST; the answer decides what becomes of the event.

In: an invocation of one event. Out: success, a failure worth another attempt, or one that is not.
How a request is really made is a port, `Post`, so that tests can stand in for the other side.
"""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

import msgspec

from headrace.model.bus import HttpTarget
from headrace.model.event import Event
from headrace.model.invocation import Invocation
from headrace.model.outcome import Cause, Outcome, Returned
from headrace.services.bus.router import REPLAY_HEADER

MAX_ANSWER = 64 << 10
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
    OSError, http.client.HTTPException: There was no answer.
"""


class Posting:
    """The handler of an HTTP forward's internal function."""

    def __init__(self, target: HttpTarget, post: Post) -> None:
        self._target, self._post = target, post

    async def __call__(self, invocation: Invocation) -> Outcome:
        """Send the invocation's events, of which there is one, in order."""
        for event in (event for chunk in invocation.chunks for event in chunk.events()):
            try:
                status = await self._post(self._request(event, invocation))
            except (OSError, http.client.HTTPException) as error:
                why = f"`{self._target.url}` gave no answer: {type(error).__name__}: {error}"
                return Returned(error=Cause("NoAnswer", why))
            if not 200 <= status < 300:
                again = status >= 500 or status in _TRY_AGAIN
                why = f"`{self._target.url}` answered {status}"
                return Returned(error=Cause(f"Http{status}", why, retryable=again))
        return Returned()

    def _request(self, event: Event, invocation: Invocation) -> HttpRequest:
        ident = event.id or invocation.key
        moment = datetime.fromtimestamp((event.time or invocation.now) / 1e6, UTC)
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
        headers.update((name.lower(), value) for name, value in self._target.headers.items())
        return HttpRequest(self._target.url, headers, event.value, self._target.timeout)


async def post(request: HttpRequest) -> int:
    """Make the request for real, in a thread; redirects are not followed.

    Raises:
        OSError, http.client.HTTPException: There was no answer.
    """
    return await asyncio.to_thread(_post, request)


def _post(request: HttpRequest) -> int:
    parts = urlsplit(request.url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=request.timeout)
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", path, body=request.body, headers=request.headers)
        answer = connection.getresponse()
        answer.read(MAX_ANSWER)
        return answer.status
    finally:
        connection.close()


def _safe(text: str) -> str:
    """Text as a header may hold it (CloudEvents HTTP binding 1.0.2, section 3.1.3.2)."""
    return quote(text, safe=" !#$&'()*+,-./:;<=>?@[]^_`{|}~")
