"""Routes of replays: begin one, see how far it is, cancel it."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.bus.replay import ReplayRow
from headrace.environment.time_slices import Slices
from headrace.http.context import ApiContext
from headrace.http.pipeline.api_routes import Routes
from headrace.http.pipeline.event_times import parse_time
from headrace.http.request import IncomingRequest
from headrace.http.response import Response, json_list, json_response
from headrace.sources.schedules.source import written


class ReplayRequest(
    msgspec.Struct, forbid_unknown_fields=True, rename={"begin": "from", "end": "to"}
):
    """What is to be replayed: events appended from one time up to another, to these rules or all."""

    name: str
    stream: str
    begin: str
    end: str | None = None
    rules: list[str] = []


def add_routes(routes: Routes) -> None:
    """Put this file's handlers into the table."""
    routes.add("GET", "/bus/replays", list_replays)
    routes.add("POST", "/bus/replays", start, body=ReplayRequest)
    routes.add("GET", "/bus/replays/{name}", show)
    routes.add("POST", "/bus/replays/{name}/cancel", cancel)


async def list_replays(context: ApiContext, _: IncomingRequest, __: tuple[str, ...]) -> Response:
    """Every replay."""
    rows = await context.services.replays.list()
    return await json_list("replays", map(_shown, rows), Slices(context.services.clock))


async def start(context: ApiContext, request: IncomingRequest, _: tuple[str, ...]) -> Response:
    """Begin a replay; answered 202 once it will go on whatever dies."""
    wish: ReplayRequest = await request.json(ReplayRequest)
    end = context.services.clock.now() if wish.end is None else parse_time(wish.end)
    row = await context.services.replays.start(
        wish.name, wish.stream, begin=parse_time(wish.begin), end=end, rules=wish.rules
    )
    return json_response(_shown(row), status=202)


async def show(context: ApiContext, _: IncomingRequest, names: tuple[str, ...]) -> Response:
    """How far one is."""
    return json_response(_shown(await context.services.replays.get(names[0])))


async def cancel(context: ApiContext, _: IncomingRequest, names: tuple[str, ...]) -> Response:
    """Stop one; what it has appended stays."""
    return json_response(_shown(await context.services.replays.cancel(names[0])))


def _shown(row: ReplayRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "stream": row.stream,
        "from": written(row.begin),
        "to": written(row.end),
        "rules": list(row.rules),
        "state": row.state,
        "left": sum(row.until) - sum(row.next),
        "read": row.read,
        "sent": row.sent,
    }
