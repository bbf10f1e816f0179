"""The pipeline of one route: its steps in order, then its end. Compiled once for each deployment."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.http.pipeline.step import (
    BodyStep,
    HeadStep,
    RoutedRequest,
    RouteEnd,
    RouteStep,
)
from headrace.http.response import Response


class RoutePipeline:
    """What a request passes at one route. Shared by all requests.

    Attributes:
        pattern: The route's path, for metrics.
        owner: The full name of the function it calls, or of the app; "" for the platform's own.
        end: What answers.
    """

    __slots__ = ("_steps", "end", "owner", "pattern")

    def __init__(
        self, steps: Sequence[RouteStep], end: RouteEnd, *, pattern: str, owner: str = ""
    ) -> None:
        self._steps = tuple(steps)
        self.end = end
        self.pattern = pattern
        self.owner = owner

    async def run(self, routed: RoutedRequest) -> Response:
        """Pass every step that has something to do, then answer.

        Raises:
            HeadraceError: The request is refused, or the end failed.
        """
        head = routed.request
        for step in self._steps:
            if not step.idle(head) and (response := await step.run(routed)) is not None:
                return response
        return await self.end.run(routed)

    def fast_steps(self, routed: RoutedRequest) -> tuple[BodyStep, ...] | None:
        """What is left to do, without waiting, for each request with this head; None where a step waits.

        Takes the steps that need only the head, so that `routed` may be copied for each such request.

        Raises:
            HeadraceError: The head is refused.
        """
        head = routed.request
        # The connection writes the body of an answer that comes by a callback.
        if head.method == "HEAD":
            return None
        left = []
        for step in self._steps:
            if step.idle(head):
                continue
            if isinstance(step, HeadStep):
                if step.take(routed) is not None:
                    return None
            elif isinstance(step, BodyStep):
                left.append(step)
            else:
                return None
        return tuple(left)
