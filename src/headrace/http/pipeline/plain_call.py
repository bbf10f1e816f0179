"""What a head asks for: whether it is a plain call, and of which function. A value; judges nothing.

A call is plain where the HTTP server needs only the function: no token, no rate, no idempotency key,
no other origin, no packed body, nothing to be sent on. It is answered without a task of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.http.cors import Headers
from headrace.http.pipeline.app_routes import Target
from headrace.model.function import AppSpec
from headrace.security.access import Peer


class RequestPlan:
    """What one head asks for, of one peer, among the apps as they are deployed.

    Attributes:
        apps: The apps it was made for.
        peer: Who holds the other end.
        function: What it calls; "" where it is not a plain call.
        pattern: Of the path, for metrics.
        method: In capitals.
        max_bytes: The longest body.
        target: The author's route; None where the function is called by its name.
        params: What stands in the braces of the route.
        headers: What the function gets besides the payload.
        extra: Headers of the answer besides its own.
    """

    __slots__ = (
        "apps",
        "extra",
        "function",
        "headers",
        "max_bytes",
        "method",
        "params",
        "pattern",
        "peer",
        "target",
    )

    def __init__(
        self,
        apps: list[AppSpec],
        peer: Peer,
        function: str = "",
        pattern: str = "",
        method: str = "",
        max_bytes: int = 0,
        target: Target | None = None,
        params: Mapping[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        extra: Headers = (),
    ) -> None:
        self.apps = apps
        self.peer = peer
        self.function = function
        self.pattern = pattern
        self.method = method
        self.max_bytes = max_bytes
        self.target = target
        self.params = params or {}
        self.headers = headers
        self.extra = extra
