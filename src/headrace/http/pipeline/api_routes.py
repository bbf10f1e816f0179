"""The table of the platform's own paths: each is answered by a handler, or by a pipeline of its own steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from headrace.http.context import ApiContext, Handler
from headrace.http.pipeline.step import HeadStep, HeadView, RoutedRequest, RouteEnd, RouteStep
from headrace.http.router import Router
from headrace.model.errors import Invalid


@dataclass(frozen=True)
class OwnSteps:
    """One of the platform's own paths that is answered by a pipeline instead of a handler.

    Attributes:
        compile: Returns the steps and the end for the texts of the path's parameters.
    """

    compile: Callable[[ApiContext, tuple[str, ...]], tuple[Sequence[RouteStep], RouteEnd]]


@dataclass(frozen=True)
class ApiRoute:
    """Route of the API: the handler of a method and a path.

    Attributes:
        answer: The handler, or the steps.
        query: The query parameters it takes; None takes any.
        body: What its JSON body holds, where it is a value of ours.
    """

    answer: Handler | OwnSteps
    query: frozenset[str] | None
    body: type | None = None


class Routes:
    """Puts routes into a table, behind a prefix."""

    def __init__(self, table: Router[ApiRoute], prefix: str = "") -> None:
        self._table = table
        self._prefix = prefix

    def add(
        self,
        method: str,
        pattern: str,
        answer: Handler | OwnSteps,
        *,
        query: Iterable[str] | None = (),
        body: type | None = None,
    ) -> None:
        """Let `answer` have the requests; of `ApiRoute`, `query` and `body`."""
        known = None if query is None else frozenset(query)
        self._table.add(method, self._prefix + pattern, ApiRoute(answer, known, body))


class CheckQuery(HeadStep):
    """Refuse a query parameter that nobody reads: `?dely=5` would send at once."""

    def __init__(self, known: frozenset[str]) -> None:
        self._known = known

    def idle(self, head: HeadView) -> bool:
        """Return whether the query is empty."""
        return not head.raw_query

    def take(self, routed: RoutedRequest) -> None:
        """Look at the names.

        Raises:
            Invalid: One is unknown, or is given twice.
        """
        # Imported where it is needed: a request that is right never needs it.
        from difflib import get_close_matches

        seen: set[str] = set()
        for name, _ in routed.request.query_pairs():
            if name in seen:
                raise Invalid(f"the query parameter `{name}` is given twice; give it once")
            seen.add(name)
        for name in sorted(seen - self._known):
            known = sorted(self._known)
            near = get_close_matches(name, known, n=1)
            hint = f" (did you mean `{near[0]}`?)" if near else ""
            takes = ", ".join(f"`{each}`" for each in known) or "none"
            raise Invalid(
                f"there is no query parameter `{name:.80}` here{hint}; this path takes {takes}"
            )
