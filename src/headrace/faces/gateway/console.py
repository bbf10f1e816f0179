"""The route of the page a person looks at: reads the rooms once, and hands on what they say."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from headrace.faces.console.overview import POLICY, Overview, page
from headrace.faces.gateway.door import Door, Routes
from headrace.faces.gateway.requests import Request
from headrace.faces.gateway.responses import Response

DEAD_SHOWN, RUNS_SHOWN, LINES_SHOWN = 20, 200, 30


def add_routes(routes: Routes) -> None:
    """Put this file's handlers into the table."""
    routes.add("GET", "/console", overview)


async def overview(door: Door, _: Request, __: tuple[str, ...]) -> Response:
    """What runs here, how far it is, and what waits for a person."""
    rooms = door.rooms
    health = rooms.health()
    shown = Overview(
        version=_version(),
        ready=health.ready,
        reason=health.reason,
        apps=list(rooms.dispatcher.apps.values()),
        lag=await rooms.lag.rows(),
        sources=rooms.sources.at_hand(),
        counters=dict(rooms.runs.counters),
        instances=rooms.instances(),
        dead=await rooms.dead_letters.list(limit=DEAD_SHOWN),
        parked=await rooms.parking.keys(),
        runs=rooms.runs.recent(limit=RUNS_SHOWN),
        logs=rooms.runs.logs(limit=LINES_SHOWN),
    )
    return Response(
        200,
        page(shown).encode(),
        b"text/html; charset=utf-8",
        (
            (b"content-security-policy", POLICY.encode()),
            (b"referrer-policy", b"no-referrer"),
            (b"x-frame-options", b"DENY"),
        ),
    )


def _version() -> str:
    try:
        return version("headrace")
    except PackageNotFoundError:
        return "unknown"
