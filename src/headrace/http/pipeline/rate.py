"""The step that limits how often one client may use a route."""

from __future__ import annotations

from headrace.http.context import ApiContext
from headrace.http.pipeline.step import RoutedRequest, RouteStep
from headrace.http.rate_limit import client_name
from headrace.model.triggers.http import PerClient


class LimitRate(RouteStep):
    """Limit the requests of one client to the route's `rate=`; a client is a token, else an address."""

    def __init__(self, context: ApiContext, route: str, rate: PerClient) -> None:
        self._context = context
        self._route = route
        self._rate = rate

    async def run(self, routed: RoutedRequest) -> None:
        """Count the request as `take` does."""
        self.take(routed)

    def take(self, routed: RoutedRequest) -> None:
        """Count the request.

        Raises:
            TooOften: The client has exceeded its rate.
        """
        client = routed.client or client_name(routed.request.client)
        now = self._context.services.clock.monotonic()
        self._context.buckets.take(self._route, client, self._rate, now)
