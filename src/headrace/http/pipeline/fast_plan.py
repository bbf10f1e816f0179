"""How the fast path takes one head: the end that it starts, and the steps that are left before it. A value.

A head without a plan for the fast path is `Application.answer`'s.
"""

from __future__ import annotations

from headrace.http.pipeline.step import BodyStep, RoutedRequest, StartableEnd
from headrace.model.function import AppSpec
from headrace.security.access import Peer


class FastPlan:
    """The plan of one head, of one peer, among the apps as they are deployed.

    Attributes:
        apps: The apps it was made for.
        peer: Who holds the other end.
        steps: What is left to do for each request with this head, without waiting.
        end: What is started then; None where the fast path steps aside.
        routed: A request with this head after the steps that need only that; copied for each request.
        pattern: Of the path, for metrics.
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
