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
    """The steps and the end of one route. Shared by all requests.

    Attributes:
        pattern: The route's path, for metrics.
        owner: The full name of the function it calls, or of the app; "" for the platform's own.
        end: The end that answers.
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
        """Run every step that is not idle, then the end.

        Raises:
            HeadraceError: The request is refused, or the end failed.
        """
        head = routed.request
        for step in self._steps:
            if not step.idle(head) and (response := await step.run(routed)) is not None:
                return response
        return await self.end.run(routed)

    def fast_steps(self, routed: RoutedRequest) -> tuple[BodyStep, ...] | None:
        """Return the steps left for each request with this head, none of which waits; None where one does.

        Runs the steps that need only the head, so that `routed` may be copied for each such request.

        Raises:
            HeadraceError: The head is refused.
        """
        head = routed.request
        # `RequestOrder.reply` writes an answer without regard to the method.
        if head.method == "HEAD":
            return None
        left = []
        for step in self._steps:
            if step.idle(head):
                continue
            if isinstance(step, HeadStep):
                # A step that answers by itself ends the request; it runs again in `run`.
                if step.take(routed) is not None:
                    return None
            elif isinstance(step, BodyStep):
                left.append(step)
            # Any other step may wait, also one that is added later: nothing is skipped by default
            # (ADR 0045).
            else:
                return None
        return tuple(left)
