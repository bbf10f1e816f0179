"""Routes of functions: call them, list them, see the map, move or pause their groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from headrace.environment.time_slices import Slices
from headrace.http.api.streams import place
from headrace.http.context import ApiContext
from headrace.http.pipeline.api_routes import OwnSteps, Routes
from headrace.http.pipeline.bind import BindJson, ReadKey, ReadTimeout
from headrace.http.pipeline.body import ReadBody, RefuseEncoding
from headrace.http.pipeline.call import CallByName
from headrace.http.pipeline.read_access import read_access_of
from headrace.http.pipeline.step import HeadStep, RoutedRequest, RouteEnd, RouteStep
from headrace.http.request import IncomingRequest
from headrace.http.response import Response, json_list, json_response, view
from headrace.model.errors import Invalid
from headrace.topology.map import MapRow, rows_of


class ResetRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Where a group is to go on."""

    start: str | int
    order_of: str | None = None


def add_routes(routes: Routes) -> None:
    """Put this file's handlers into the table."""
    routes.add("POST", "/functions/{function}", OwnSteps(call), query=("timeout",))
    routes.add("GET", "/functions", list_functions)
    routes.add("GET", "/functions/{function}", show_function)
    routes.add("GET", "/map", show_map)
    routes.add("POST", "/functions/{function}/reset", reset, body=ResetRequest)
    routes.add("POST", "/functions/{function}/pause", pause)
    routes.add("POST", "/functions/{function}/resume", resume)


class CheckFunction(HeadStep):
    """Refuse the name of a function that is not deployed."""

    def __init__(self, context: ApiContext, function: str) -> None:
        self._supervisor = context.services.supervisor
        self._function = function

    def take(self, _: RoutedRequest) -> None:
        """Look it up.

        Raises:
            Unknown: It is not deployed.
        """
        self._supervisor.known(self._function)


def call(context: ApiContext, names: tuple[str, ...]) -> tuple[Sequence[RouteStep], RouteEnd]:
    """Run the function on the body and answer with what it returned, once that is committed."""
    function = names[0]
    steps = (
        CheckFunction(context, function),
        RefuseEncoding(),
        ReadBody(context),
        BindJson(),
        ReadKey(),
        ReadTimeout(),
    )
    return steps, CallByName(context, function)


async def list_functions(context: ApiContext, _: IncomingRequest, __: tuple[str, ...]) -> Response:
    """Every function as deployed."""
    specs = [spec for _, spec in sorted(context.services.supervisor.functions.items())]
    return await json_list(
        "functions", map(msgspec.to_builtins, specs), Slices(context.services.clock)
    )


async def show_function(
    context: ApiContext, request: IncomingRequest, names: tuple[str, ...]
) -> Response:
    """One function as deployed, with its lag and counters, and why no instance starts."""
    spec = context.services.supervisor.known(names[0])
    shown: dict[str, Any] = msgspec.to_builtins(spec)
    access = await read_access_of(context, request)
    rows = access.lag(await context.services.lag.rows(spec.name))
    shown["lag"] = [view(row) async for row in Slices(context.services.clock).over(rows)]
    failed = access.failed_start(spec.name, context.services.failed_start(spec.name))
    if failed is not None:
        shown["failed_start"] = view(failed)
    if (counters := context.services.runs.counters.get(spec.name)) is not None:
        shown["counters"] = {
            "outcomes": dict(counters.outcomes),
            "events": counters.events,
            "dead": counters.dead,
            "parked": counters.parked,
            "seconds": counters.seconds,
        }
    return json_response(shown)


async def show_map(context: ApiContext, request: IncomingRequest, __: tuple[str, ...]) -> Response:
    """The function-trigger map."""
    apps = [app for _, app in sorted(context.services.supervisor.apps.items())]
    # A function's rows stand in the order of its triggers.
    access = await read_access_of(context, request)
    rows = access.sources(await context.services.sources.cached_rows())
    sources = {(row.function, row.place): row for row in rows}
    places: Counter[str] = Counter()

    def shown(row: MapRow) -> dict[str, Any]:
        source = sources.get((row.function, places[row.function]))
        places[row.function] += 1
        said: dict[str, Any] = view(row)
        said["state"] = "" if source is None else source.state
        said["error"] = "" if source is None else source.error
        return said

    return await json_list(
        "map",
        map(shown, rows_of(apps, context.services.runs.observed())),
        Slices(context.services.clock),
    )


async def reset(context: ApiContext, request: IncomingRequest, names: tuple[str, ...]) -> Response:
    """Send a group back, or forward."""
    context.services.supervisor.known(names[0])
    wish: ResetRequest = await request.json(ResetRequest)
    start = place(str(wish.start))
    if isinstance(wish.start, int) and wish.start < 0:
        raise Invalid(f"`start` is {wish.start}; offsets begin at 0")
    await context.services.supervisor.reset(names[0], start, order_of=wish.order_of)
    return json_response({"function": names[0], "start": start})


async def pause(context: ApiContext, _: IncomingRequest, names: tuple[str, ...]) -> Response:
    """Feed the function no more; its positions wait."""
    context.services.supervisor.pause(names[0])
    return json_response({"function": names[0], "paused": True})


async def resume(context: ApiContext, _: IncomingRequest, names: tuple[str, ...]) -> Response:
    """Feed it again."""
    context.services.supervisor.resume(names[0])
    return json_response({"function": names[0], "paused": False})
