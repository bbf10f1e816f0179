"""Routes of schedules: when each fires next, and firing one by hand."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.admin.schedules import ScheduleRow
from headrace.environment.time_slices import Slices
from headrace.http.context import ApiContext
from headrace.http.pipeline.api_routes import Routes
from headrace.http.request import IncomingRequest
from headrace.http.response import Response, json_list, json_response
from headrace.sources.schedules.source import in_zone, written


class FireRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Which of the function's schedules is to fire."""

    number: int = 0


def add_routes(routes: Routes) -> None:
    """Put this file's handlers into the table."""
    routes.add("GET", "/schedules", list_schedules)
    routes.add("GET", "/schedules/{function}", show_schedules)
    routes.add("POST", "/schedules/{function}/fire", fire, body=FireRequest)


async def list_schedules(context: ApiContext, _: IncomingRequest, __: tuple[str, ...]) -> Response:
    """Every schedule."""
    return await _listed(context, await context.services.schedules.rows())


async def show_schedules(
    context: ApiContext, _: IncomingRequest, names: tuple[str, ...]
) -> Response:
    """One function's schedules."""
    return await _listed(context, await context.services.schedules.rows(names[0]))


async def _listed(context: ApiContext, rows: list[ScheduleRow]) -> Response:
    return await json_list("schedules", map(_shown, rows), Slices(context.services.clock))


async def fire(context: ApiContext, request: IncomingRequest, names: tuple[str, ...]) -> Response:
    """Let one fire now; answered 202 once its event is on the disk."""
    wish: FireRequest = await request.json(FireRequest)
    event = await context.services.schedules.fire(names[0], wish.number)
    return json_response({"function": names[0], "number": wish.number, "event": event}, status=202)


def _shown(row: ScheduleRow) -> dict[str, Any]:
    shown: dict[str, Any] = msgspec.to_builtins(row)
    for name in ("next", "fired"):
        time = shown[name]
        shown[name] = None if time is None else written(time)
        shown[f"{name}_local"] = None if time is None else in_zone(time, row.tz)
    return shown
