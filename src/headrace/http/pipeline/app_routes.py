"""The routes authors declare: a table made from what is deployed, and who answers a request.

In: a method and a path. Out: the trigger, its function, and what stands in the braces of its path;
None where no route has the path. The table is made again when an app is deployed. Answers nothing.
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
MAX_PATH = 256
_UNKNOWN: Any = object()
DOTS = frozenset({".", ".."})
ANY = "{}"
"""In place of the first part of paths that begin with a name in braces; no literal part is like it."""


@dataclass(frozen=True)
class Target:
    """Who answers at a path.

    Attributes:
        app: The app that declared it.
        trigger: The route as declared.
        segments: The parts of its path.
        function: Who is called; None for a proxy.
        stream: Where requests are kept until the function has had them; "" where they are not.
    """

    app: str
    trigger: Http | Webhook | Proxy
    segments: tuple[Segment, ...]
    function: FunctionSpec | None = None
    stream: str = ""

    @property
    def name(self) -> str:
        """For metrics and rate limits."""
        return self.trigger.path

    @property
    def owner(self) -> str:
        """The full name of the function, or the app's where it is a proxy."""
        return self.app if self.function is None else self.function.name

    @cached_property
    def body(self) -> Checker | None:
        """What holds bodies against their type; None where any will do."""
        schema = None if isinstance(self.trigger, Proxy) else self.trigger.schema
        return None if schema is None else Checker(schema)

    @cached_property
    def query(self) -> Checker | None:
        """The same for queries."""
        schema = None if isinstance(self.trigger, Proxy) else self.trigger.query_schema
        return None if schema is None else Checker(schema)

    @cached_property
    def declared_answer(self) -> DeclaredAnswer | None:
        """What holds answers against their types; None where none is declared."""
        trigger = self.trigger
        declared = isinstance(trigger, Http) and (trigger.answers or not trigger.any_status)
        return DeclaredAnswer(trigger) if isinstance(trigger, Http) and declared else None

    @property
    def cors(self) -> Cors | None:
        """Which other pages may call it."""
        return self.trigger.cors

    @property
    def auth(self) -> Bearer | None:
        """Who may come in."""
        return self.trigger.auth

    @property
    def rate(self) -> PerClient | None:
        """How often one client may."""
        return self.trigger.rate


@dataclass(frozen=True)
class Found:
    """A target with its pipeline, what stands in the braces, and the methods of its path."""

    target: Target
    pipeline: RoutePipeline
    params: dict[str, Any]
    methods: list[str]


class RouteTable:
    """Every route of every app deployed, compiled. Made again when they change."""

    def __init__(
        self, apps: Mapping[str, AppSpec], compile_route: Callable[[Target], RoutePipeline]
    ) -> None:
        self._apps = apps
        self._compile_route = compile_route
        self._known: list[AppSpec] = []
        self._targets: dict[str, list[tuple[Target, RoutePipeline]]] = {}
        # Paths without names in braces, which clients ask for again and again; None: no route.
        self._found: dict[tuple[str, str], Found | None] = {}

    @property
    def apps(self) -> list[AppSpec]:
        """The apps as they are deployed now."""
        return list(self._apps.values())

    def holds(self, apps: list[AppSpec]) -> bool:
        """Whether these are still the apps that are deployed."""
        # What is the same object is equal without being looked into.
        return list(self._apps.values()) == apps

    def find(self, method: str, raw_path: str, asked: str | None) -> Found | None:
        """Who answers; for `OPTIONS`, who would answer the method a browser means to use.

        Raises:
            NotAllowed: The path is a route's, the method is not.
            Invalid: What stands in the braces is not of the kind asked for, or no UTF-8.
        """
        apps = list(self._apps.values())
        # What is the same object is equal without being looked into.
        if apps != self._known:
            self._known = apps
            self._targets = self._compiled(targets_of(apps))
            self._found.clear()
        asks = (method, raw_path)
        known: Found | None = self._found.get(asks, _UNKNOWN)
        if known is not _UNKNOWN:
            return known
        found = self._look(method, raw_path, asked)
        if method != "OPTIONS" and not (found and found.params) and len(raw_path) <= MAX_PATH:
            if len(self._found) >= MAX_FOUND:
                self._found.clear()
            self._found[asks] = found
        return found

    def _look(self, method: str, raw_path: str, asked: str | None) -> Found | None:
        parts = raw_path.split("/")[1:]
        if not parts or not (among := self._among(parts[0])):
            return None
        wanted = asked if method == "OPTIONS" and asked else "GET" if method == "HEAD" else method
        fitting = [
            (target, pipeline, quoted)
            for target, pipeline in among
            if (quoted := fits(target.segments, parts)) is not None
        ]
        if not fitting:
            return None
        methods = sorted({name for target, _, _ in fitting for name in target.trigger.methods})
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
        """Which pages may call the routes of a path; None where there is none, or none may."""
        found = (target.cors for target in self._at(raw_path) if target.cors is not None)
        return next(found, None)

    def is_authored(self, raw_path: str) -> bool:
        """Whether a path is a route's, whatever the method."""
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
        """Each target with its pipeline, in the order in which they are tried, by the path's first part."""
        found: dict[str, list[tuple[Target, RoutePipeline]]] = {}
        for target in sorted(targets, key=lambda target: rank(target.segments)):
            compiled = (target, self._compile_route(target))
            first = target.segments[0]
            found.setdefault(ANY if first.name else unquote(first.text), []).append(compiled)
        return found

    def of_stream(self, stream: str) -> Target | None:
        """The route whose requests are kept in `stream`."""
        for target in targets_of(self._apps.values()):
            if target.stream == stream:
                return target
        return None


def targets_of(apps: Iterable[AppSpec]) -> list[Target]:
    """Every route of the apps."""
    found = []
    for app in apps:
        for function in app.functions:
            for place, trigger in enumerate(function.triggers):
                if isinstance(trigger, (Http, Webhook)):
                    reads = listener(function.name, place, trigger)
                    stream = "" if reads is None else reads.streams[0]
                    found.append(Target(app.name, trigger, trigger.segments, function, stream))
        for proxy in app.proxies:
            whole = segments_of(proxy.path, proxy.path)
            found.append(Target(app.name, proxy, whole))
            found.append(Target(app.name, proxy, (*whole, Segment("", "rest", "path"))))
    return found


def _text(segment: Segment, quoted: str) -> str:
    text = unquoted(quoted)
    # A service behind may read the path in its own way: nothing that climbs is handed on.
    if DOTS & set(text.replace("\\", "/").split("/")):
        raise Invalid(f"`{segment.name}` in the path holds `.` or `..` as a step; write it without")
    return text
