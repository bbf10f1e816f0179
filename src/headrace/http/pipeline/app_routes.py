"""The table of the routes that authors declare, built from the deployed apps.

In: a method and a path. Out: the trigger, its function, and the path's parameters; None where no route
has the path. The table is built again when an app is deployed. Sends no answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import unquote

from headrace.http.pipeline.answer_types import DeclaredAnswer
from headrace.http.pipeline.route_pipeline import RoutePipeline
from headrace.http.problem_details import NotAllowed
from headrace.http.router import unquoted
from headrace.model.errors import Invalid
from headrace.model.function import AppSpec, FunctionSpec
from headrace.model.route import RESERVED, Segment, fits, rank, segments_of, value_of
from headrace.model.triggers.base import listener
from headrace.model.triggers.http import Bearer, Cors, Http, PerClient, Proxy, Webhook
from headrace.patterns.schema_validation import Checker

MAX_FOUND = 1_024
"""Paths whose routes are remembered; clients choose paths, so there is no other bound."""
MAX_PATH = 256
_UNKNOWN: Any = object()
DOTS = frozenset({".", ".."})
ANY = "{}"
"""In place of the first part of paths that begin with a name in braces; no literal part is like it."""


@dataclass(frozen=True)
class Target:
    """The receiver of a path's requests.

    Attributes:
        app: The app that declared it.
        trigger: The route as declared.
        segments: The parts of its path.
        function: The function that is called; None for a proxy.
        stream: The stream that stores requests until the function has processed them; "" without one.
    """

    app: str
    trigger: Http | Webhook | Proxy
    segments: tuple[Segment, ...]
    function: FunctionSpec | None = None
    stream: str = ""

    @property
    def name(self) -> str:
        """The route's name in metrics and rate limits."""
        return self.trigger.path

    @property
    def owner(self) -> str:
        """The full name of the function, or the app's where it is a proxy."""
        return self.app if self.function is None else self.function.name

    @cached_property
    def body(self) -> Checker | None:
        """The checker of bodies; None where any body is accepted."""
        schema = None if isinstance(self.trigger, Proxy) else self.trigger.schema
        return None if schema is None else Checker(schema)

    @cached_property
    def query(self) -> Checker | None:
        """The checker of queries; None where any query is accepted."""
        schema = None if isinstance(self.trigger, Proxy) else self.trigger.query_schema
        return None if schema is None else Checker(schema)

    @cached_property
    def declared_answer(self) -> DeclaredAnswer | None:
        """The checker of answers; None where none is declared."""
        trigger = self.trigger
        declared = isinstance(trigger, Http) and (trigger.answers or not trigger.any_status)
        return DeclaredAnswer(trigger) if isinstance(trigger, Http) and declared else None

    @property
    def cors(self) -> Cors | None:
        """The pages of other origins that may call it."""
        return self.trigger.cors

    @property
    def auth(self) -> Bearer | None:
        """The token that it requires; None without one."""
        return self.trigger.auth

    @property
    def rate(self) -> PerClient | None:
        """The limit of requests of one client."""
        return self.trigger.rate


@dataclass(frozen=True)
class Found:
    """A target with its pipeline, the path's parameters, and the methods of its path."""

    target: Target
    pipeline: RoutePipeline
    params: dict[str, Any]
    methods: list[str]


class RouteTable:
    """The compiled routes of every deployed app, compiled again when the apps change."""

    def __init__(
        self, apps: Mapping[str, AppSpec], compile_route: Callable[[Target], RoutePipeline]
    ) -> None:
        self._apps = apps
        self._compile_route = compile_route
        self._known: list[AppSpec] = []
        self._targets: dict[str, list[tuple[Target, RoutePipeline]]] = {}
        # Paths without parameters, which clients request again and again. None means no route, so that
        # the platform's own paths are not compared with every route each time.
        self._found: dict[tuple[str, str], Found | None] = {}

    @property
    def apps(self) -> list[AppSpec]:
        """The apps that are deployed now."""
        return list(self._apps.values())

    def holds(self, apps: list[AppSpec]) -> bool:
        """Return whether these are still the apps that are deployed."""
        # List equality compares identical objects by identity first, so this is cheap enough for
        # every request; a callback from deployments would be one more way to forget.
        return list(self._apps.values()) == apps

    def find(self, method: str, raw_path: str, asked: str | None) -> Found | None:
        """Return the target of a request; for `OPTIONS`, that of the method a browser wants to use.

        Raises:
            NotAllowed: The path belongs to a route, but not with this method.
            Invalid: A path parameter is not of its type, or is not UTF-8.
        """
        apps = list(self._apps.values())
        if apps != self._known:
            self._known = apps
            self._targets = self._compiled(targets_of(apps))
            self._found.clear()
        wanted = (method, raw_path)
        known: Found | None = self._found.get(wanted, _UNKNOWN)
        if known is not _UNKNOWN:
            return known
        found = self._look(method, raw_path, asked)
        # Not for `OPTIONS`, which also depends on a header, nor with parameters, which differ
        # from request to request. Errors are raised above and so not remembered.
        if method != "OPTIONS" and not (found and found.params) and len(raw_path) <= MAX_PATH:
            if len(self._found) >= MAX_FOUND:
                self._found.clear()
            self._found[wanted] = found
        return found

    def _look(self, method: str, raw_path: str, asked: str | None) -> Found | None:
        parts = raw_path.split("/")[1:]
        if not parts or not (among := self._among(parts[0])):
            return None
        # RFC 9110, section 9.3.2: `HEAD` is `GET` without the body.
        wanted = asked if method == "OPTIONS" and asked else "GET" if method == "HEAD" else method
        fitting = [
            (target, pipeline, quoted)
            for target, pipeline in among
            if (quoted := fits(target.segments, parts)) is not None
        ]
        if not fitting:
            return None
        methods = sorted({name for target, _, _ in fitting for name in target.trigger.methods})
        # A parameter of the wrong type is an error only if no later route accepts the path:
        # `/orders/{id:int}` and `/orders/{name}` may stand next to each other.
        wrong: Invalid | None = None
        for target, pipeline, quoted in fitting:
            if wanted not in target.trigger.methods:
                continue
            try:
                params = {
                    segment.name: value_of(segment, _text(segment, text))
                    for segment, text in quoted
                }
            except Invalid as error:
                wrong = wrong or error
                continue
            return Found(target, pipeline, params, methods)
        if wrong is not None:
            raise wrong
        names = ", ".join(sorted({*methods, "HEAD"}) if "GET" in methods else methods)
        raise NotAllowed(f"`{method}` does nothing at `{raw_path:.200}`; use {names}", names)

    def cors_at(self, raw_path: str) -> Cors | None:
        """Return the pages that may call the routes of a path; None where there are none."""
        found = (target.cors for target in self._at(raw_path) if target.cors is not None)
        return next(found, None)

    def is_authored(self, raw_path: str) -> bool:
        """Return whether a path belongs to a route, with any method."""
        return next(self._at(raw_path), None) is not None

    def _at(self, raw_path: str) -> Iterator[Target]:
        parts = raw_path.split("/")[1:]
        for target, _ in self._among(parts[0]) if parts else ():
            if fits(target.segments, parts) is not None:
                yield target

    def _among(self, quoted: str) -> list[tuple[Target, RoutePipeline]]:
        """Every target that a path with this first part may fit, in the order in which they are tried."""
        first = unquote(quoted)
        if first in RESERVED:
            # A route such as `/{name}` must not answer for the platform, however the word is quoted.
            return []
        return [*self._targets.get(first, ()), *self._targets.get(ANY, ())]

    def _compiled(self, targets: list[Target]) -> dict[str, list[tuple[Target, RoutePipeline]]]:
        """Return the targets with their pipelines by the path's first part, in the order in which they are tried."""
        # A route's first part is always literal, so a path is compared only with the routes that
        # share it.
        found: dict[str, list[tuple[Target, RoutePipeline]]] = {}
        for target in sorted(targets, key=lambda target: rank(target.segments)):
            compiled = (target, self._compile_route(target))
            first = target.segments[0]
            found.setdefault(ANY if first.name else unquote(first.text), []).append(compiled)
        return found

    def of_stream(self, stream: str) -> Target | None:
        """Return the route whose requests are stored in `stream`."""
        for target in targets_of(self._apps.values()):
            if target.stream == stream:
                return target
        return None


def targets_of(apps: Iterable[AppSpec]) -> list[Target]:
    """Return every route of the apps."""
    found = []
    for app in apps:
        for function in app.functions:
            for place, trigger in enumerate(function.triggers):
                if isinstance(trigger, (Http, Webhook)):
                    reads = listener(function.name, place, trigger)
                    stream = "" if reads is None else reads.streams[0]
                    found.append(Target(app.name, trigger, trigger.segments, function, stream))
        for proxy in app.proxies:
            # Two targets: a proxy takes its own path and everything below it.
            whole = segments_of(proxy.path, proxy.path)
            found.append(Target(app.name, proxy, whole))
            found.append(Target(app.name, proxy, (*whole, Segment("", "rest", "path"))))
    return found


def _text(segment: Segment, quoted: str) -> str:
    text = unquoted(quoted)
    # An upstream may normalise the path in its own way: `..`, also percent-encoded or with a
    # backslash, must not reach a path outside the route.
    if DOTS & set(text.replace("\\", "/").split("/")):
        raise Invalid(f"`{segment.name}` in the path holds `.` or `..` as a step; write it without")
    return text
