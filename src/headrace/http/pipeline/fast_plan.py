"""The plan of the fast path for one head: the end to start, and the steps that are left before it. A value.

`Application.answer` takes requests whose plan has no end.
"""

from __future__ import annotations

from headrace.http.pipeline.step import BodyStep, RoutedRequest, StartableEnd
from headrace.model.function import AppSpec
from headrace.security.access import Peer


class FastPlan:
    """The plan of one head, for one peer and the apps that are deployed now.

    Attributes:
        apps: The apps for which it was made.
        peer: The peer for which it was made.
        steps: The steps that each request with this head still has to pass; none of them waits.
        end: The end to start then; None where `Application.answer` takes the request.
        routed: A request with this head after the steps that need only the head; copied for each request.
        pattern: The route's path, for metrics.
        owner: The function that is called.
    """

    __slots__ = ("apps", "end", "owner", "pattern", "peer", "routed", "steps")

    def __init__(
        self,
        apps: list[AppSpec],
        peer: Peer,
        routed: RoutedRequest,
        steps: tuple[BodyStep, ...] = (),
        end: StartableEnd | None = None,
        pattern: str = "",
        owner: str = "",
    ) -> None:
        self.apps = apps
        self.peer = peer
        self.routed = routed
        self.steps = steps
        self.end = end
        self.pattern = pattern
        self.owner = owner
