"""The context of handlers: the node's services, the HTTP server's counters, and an event for its closing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal

from headrace.environment.tasks import Tasks
from headrace.http.admission import Admission
from headrace.http.dependencies import Dependencies
from headrace.http.metrics import Metrics
from headrace.http.rate_limit import RateLimiter
from headrace.http.request import IncomingRequest
from headrace.http.response import Response
from headrace.telemetry.history import AnsweredRequest


@dataclass(frozen=True, kw_only=True)
class ApiContext:
    """One per gateway; handlers read it and change only its counters.

    Attributes:
        scheme: What clients speak: `http` or `https`.
        api_apart: Whether the platform's own paths have a listener of their own, which clients of authors' routes need
            not reach.
    """

    services: Dependencies
    admission: Admission
    metrics: Metrics
    tasks: Tasks
    scheme: Literal["http", "https"] = "http"
    api_apart: bool = False
    buckets: RateLimiter = field(default_factory=RateLimiter)
    closing: asyncio.Event = field(default_factory=asyncio.Event)

    def answered(
        self, route: str, method: str, path: str, status: int, seconds: float, function: str
    ) -> None:
        """Count an answer, and report it to the node's observer.

        Args:
            route: The route's pattern; "-" where there is none.
            method: In capitals.
            path: As it came.
            status: The answer's status.
            seconds: From headers to answer.
            function: As in `AnsweredRequest`.
        """
        self.metrics.answered(route, method, status, seconds)
        observer = self.services.runs.observer
        if observer is not None:
            now = self.services.clock.now()
            observer.answered(AnsweredRequest(now, method, path, status, seconds, function))


Handler = Callable[[ApiContext, IncomingRequest, tuple[str, ...]], Awaitable[Response]]
