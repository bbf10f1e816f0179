"""Routes that only look: lag, runs, logs, instances, health, metrics, and what there is."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.admin.sources import SourceRow
from headrace.environment.time_slices import Slices
from headrace.http.context import ApiContext
from headrace.http.metrics import MEDIA, NodeSnapshot
from headrace.http.pipeline.api_routes import Routes
from headrace.http.pipeline.read_access import read_access_of
from headrace.http.request import IncomingRequest, wants_page
from headrace.http.response import (
    Response,
    json_document,
    json_list,
    json_response,
    view,
)
from headrace.model.errors import Unknown
from headrace.model.replication_slot import SLOT_WARNING_BYTES
from headrace.model.route import API_PREFIX
from headrace.topology.openapi import document_of

MAX_PAGE = 1_000
LISTS = (
    "streams",
    "functions",
    "map",
    "lag",
    "sources",
    "schedules",
    "queues",
    "dead",
    "parked",
    "bus/replays",
    "invocations",
    "logs",
    "state/{app}",
    "instances",
)
"""What the index leads to, below the prefix of the platform's paths."""


def add_routes(routes: Routes) -> None:
    """Put this file's handlers into the table."""
    routes.add("GET", "", index)
    routes.add("GET", "/lag", lag, query=("function",))
    routes.add("GET", "/sources", sources, query=("function", "warning"))
    routes.add("GET", "/invocations", invocations, query=("function", "limit"))
    routes.add("GET", "/logs", logs, query=("function", "limit", "after"))
    routes.add("GET", "/instances", instances)


def add_root_routes(routes: Routes) -> None:
    """Put those into the table that stand at the root, where monitors and browsers look for them."""
    # Probes and scrapers may say what they like: nothing here reads it.
    routes.add("GET", "/", root, query=None)
    routes.add("GET", "/metrics", metrics, query=None)


def add_shared_routes(routes: Routes) -> None:
    """Put those into the table that every listener serves: health, and the document of the authors' routes."""
    routes.add("GET", "/openapi.json", openapi, query=None)
    routes.add("GET", "/healthz", alive, query=None)
    routes.add("GET", "/readyz", ready, query=None)


async def root(_: ApiContext, request: IncomingRequest, __: tuple[str, ...]) -> Response:
    """Where no author's route is: a browser is sent to the console.

    Raises:
        Unknown: It is a program that asks.
    """
    if wants_page(request):
        return Response(303, b"", b"text/plain", ((b"location", b"/console"),))
    raise Unknown(f"no app has a route at `/`; `GET {API_PREFIX}` lists the platform's own paths")


async def index(context: ApiContext, _: IncomingRequest, __: tuple[str, ...]) -> Response:
    """What this is, its apps, and where to go on."""
    return json_response(
        {
            "name": "headrace",
            "apps": [name for name in sorted(context.services.supervisor.apps) if name[0] != "_"],
            "links": [
                "/console",
                "/openapi.json",
                "/healthz",
                "/readyz",
                "/metrics",
                *(f"{API_PREFIX}/{name}" for name in LISTS),
            ],
        }
    )


async def lag(context: ApiContext, request: IncomingRequest, _: tuple[str, ...]) -> Response:
    """How far every group is behind."""
    name = request.query.get("function")
    if name is not None:
        context.services.supervisor.known(name)
    access = await read_access_of(context, request)
    rows = access.lag(await context.services.lag.rows(name))
    return await json_list("lag", map(view, rows), Slices(context.services.clock))


async def sources(context: ApiContext, request: IncomingRequest, _: tuple[str, ...]) -> Response:
    """Every trigger that brings events in, whether it does, and how its replication slot stands."""
    warning = request.size("warning", SLOT_WARNING_BYTES)
    access = await read_access_of(context, request)
    found = await context.services.sources.rows(request.query.get("function"))
    shown = (source_view(row, warning) for row in access.sources(found))
    return await json_list("sources", shown, Slices(context.services.clock))


def source_view(row: SourceRow, warning_bytes: int = SLOT_WARNING_BYTES) -> dict[str, Any]:
    """A source for readers; its slot with the word for how it stands."""
    shown: dict[str, Any] = view(row)
    if not row.since:
        shown["since"] = None
    if row.slot is not None:
        shown["slot"]["state"] = row.slot.state(warning_bytes)
    return shown


async def invocations(
    context: ApiContext, request: IncomingRequest, _: tuple[str, ...]
) -> Response:
    """The latest invocations, newest first."""
    limit = request.number("limit", 100, low=1, high=MAX_PAGE)
    name = request.query.get("function")
    access = await read_access_of(context, request)
    found = context.services.runs.recent(name, limit, access.function)
    if name is not None and not found:
        # What has run may be deployed no more; what has not must be.
        context.services.supervisor.known(name)
    return await json_list("invocations", map(view, found), Slices(context.services.clock))


async def logs(context: ApiContext, request: IncomingRequest, _: tuple[str, ...]) -> Response:
    """Log lines of functions, oldest first; pass `after` on to go on."""
    limit = request.number("limit", 100, low=1, high=MAX_PAGE)
    start = request.number("after", 0, high=1 << 62)
    name = request.query.get("function")
    access = await read_access_of(context, request)
    found = context.services.runs.logs(name, limit=limit, after=start, of=access.function)
    if name is not None and not found and not start:
        context.services.supervisor.known(name)
    after = found[-1].number if found else start
    return await json_list("logs", map(view, found), Slices(context.services.clock), after=after)


async def instances(context: ApiContext, _: IncomingRequest, __: tuple[str, ...]) -> Response:
    """Every running or hibernating instance."""
    shown = map(view, context.services.instances())
    return await json_list("instances", shown, Slices(context.services.clock))


async def alive(_: ApiContext, __: IncomingRequest, ___: tuple[str, ...]) -> Response:
    """The event loop runs; nothing else is checked."""
    return json_response({"status": "ok"})


async def ready(context: ApiContext, request: IncomingRequest, __: tuple[str, ...]) -> Response:
    """Whether the node takes work now: 200, else 503. What fails is named to everybody, why to readers of every app."""
    health = context.services.health()
    access = await read_access_of(context, request)
    if not access.every_app(context.services.supervisor.apps):
        health = msgspec.structs.replace(health, checks=dict.fromkeys(health.checks, "failing"))
    status = 200 if health.ready and not context.closing.is_set() else 503
    return json_response(view(health), status=status)


async def metrics(context: ApiContext, _: IncomingRequest, __: tuple[str, ...]) -> Response:
    """Prometheus exposition."""
    services = context.services
    seen = NodeSnapshot(
        counters=services.runs.counters,
        lag=await services.lag.rows(),
        instances=services.instances(),
        cold_starts=services.cold_starts(),
        sources=await services.sources.rows(),
        apps=list(services.supervisor.apps.values()),
    )
    body = await context.metrics.render(seen, Slices(services.clock))
    return Response(200, body, MEDIA)


async def openapi(context: ApiContext, _: IncomingRequest, __: tuple[str, ...]) -> Response:
    """The authors' routes as an OpenAPI 3.1 document."""
    apps = [app for _, app in sorted(context.services.supervisor.apps.items())]
    slices = Slices(context.services.clock)
    return await json_document(await slices.through(document_of(apps)), "paths", slices)
