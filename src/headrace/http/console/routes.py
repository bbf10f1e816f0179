"""The routes of the pages a person looks at: each reads the node's services once, and draws what they return."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache
from importlib.metadata import PackageNotFoundError, version

import msgspec
from markupsafe import Markup

from headrace.delivery.parked import decode_event
from headrace.environment.time_slices import Slices
from headrace.http.api.dead_letters import explained, position_of
from headrace.http.api.records import (
    cursor_text,
    parse_cursor,
    read_page,
    starting_cursor,
)
from headrace.http.api.streams import place
from headrace.http.console import failures, functions, overview, records, triggers
from headrace.http.console.graph_svg import MAX_NODES
from headrace.http.console.overview import Overview
from headrace.http.console.page_frame import POLICY, Frame, Sheet, around, bare_document
from headrace.http.console.records import Browsed, Held
from headrace.http.console.throughput import rates
from headrace.http.context import ApiContext
from headrace.http.pipeline.api_routes import Routes
from headrace.http.pipeline.read_access import Owners, authorize_reader, read_access_of
from headrace.http.problem_details import answer_error
from headrace.http.request import IncomingRequest
from headrace.http.response import Response, event_view, json_response
from headrace.model.errors import HeadraceError
from headrace.model.function import StreamSpec
from headrace.security.operator_key import COOKIE
from headrace.security.tokens import Unauthenticated
from headrace.telemetry.history import MAX_RUNS, Counters
from headrace.topology.map import rows_of_function

DEAD_SHOWN, PARKED_SHOWN, FAILED_SHOWN, RUNS_SHOWN, LINES_SHOWN = 20, 1_000, 20, 50, 30
PAGE = 50
LATEST = 200
"""Records that are looked at to find the latest ones of all partitions."""

Page = Callable[[ApiContext, IncomingRequest, tuple[str, ...]], Awaitable[Sheet]]


QUERIES = {
    "/console/streams/{stream}": ("partition", "cursor", "from"),
    "/console/failures": ("after",),
}


def add_routes(routes: Routes) -> None:
    """Put into the table what belongs among the platform's paths: an operator asks it for a link."""
    routes.add("POST", "/console/links", make_link)


def add_root_routes(routes: Routes) -> None:
    """Put the pages into the table."""
    for pattern, page in (
        ("/console", show_overview),
        ("/console/streams", list_streams),
        ("/console/streams/{stream}", browse),
        ("/console/events/{stream}/{partition}/{offset}", show_event),
        ("/console/functions/{function}", show_function),
        ("/console/triggers", list_triggers),
        ("/console/queues", list_queues),
        ("/console/failures", list_failures),
        ("/console/dead/{function}/{stream}/{partition}/{offset}", show_letter),
        ("/console/runs", list_runs),
    ):
        routes.add("GET", pattern, _shown(page), query=QUERIES.get(pattern, ()))
    routes.add("GET", "/console/enter/{code}", enter)


async def make_link(context: ApiContext, _: IncomingRequest, __: tuple[str, ...]) -> Response:
    """A path that lets one browser into the console, once."""
    return json_response(
        {"path": f"/console/enter/{context.services.operator.link(context.services.entropy)}"},
        status=201,
    )


async def enter(context: ApiContext, _: IncomingRequest, names: tuple[str, ...]) -> Response:
    """Let a browser in by the code of its link, and know it from then on."""
    session = context.services.operator.enter(names[0], context.services.entropy)
    if session is None:
        raise Unauthenticated(
            "this link was used before, or is another node's; `headrace console` gives a new one"
        )
    cookie = f"{COOKIE}={session}; Path=/console; HttpOnly; SameSite=Strict"
    if context.scheme == "https":
        cookie += "; Secure"
    return Response(
        303,
        b"",
        b"text/plain",
        (
            (b"location", b"/console"),
            (b"set-cookie", cookie.encode()),
            (b"cache-control", b"no-store"),
            (b"referrer-policy", b"no-referrer"),
        ),
    )


def _shown(
    page: Page,
) -> Callable[[ApiContext, IncomingRequest, tuple[str, ...]], Awaitable[Response]]:
    """A handler that answers with a page, and with one that says so where something is not there.

    A page's pieces are made here, in slices, whichever page it is.
    """

    async def handler(
        context: ApiContext, request: IncomingRequest, names: tuple[str, ...]
    ) -> Response:
        status = 200
        try:
            sheet = await page(context, request, names)
            slices = Slices(context.services.clock)
            pieces = [each.encode() async for each in slices.over(sheet.pieces)]
            await slices.step()
        except HeadraceError as error:
            status = answer_error(error).status
            sheet = Sheet(title="That cannot be shown", pieces=())
            pieces = [Markup("<p>{}</p>").format(str(error)).encode()]
        before, after = around(_frame(context), sheet)
        return _page(status, b"".join((before.encode(), *pieces, after.encode())))

    return handler


def _page(status: int, body: bytes) -> Response:
    return Response(
        status,
        body,
        b"text/html; charset=utf-8",
        (
            (b"content-security-policy", POLICY.encode()),
            (b"referrer-policy", b"no-referrer"),
            (b"x-frame-options", b"DENY"),
        ),
    )


def error_page(problem: Response, text: str) -> Response:
    """The page that says to a browser what `problem` says to a program; nothing of the node stands on it."""
    page = _page(problem.status, bare_document("That cannot be shown", text).encode())
    return msgspec.structs.replace(page, headers=(*page.headers, *problem.headers))


async def show_overview(
    context: ApiContext, request: IncomingRequest, __: tuple[str, ...]
) -> Sheet:
    """Show functions, their lag, and failures that wait for an operator."""
    services, found = context.services, await read_access_of(context, request)
    return overview.page(
        Overview(
            apps=list(services.supervisor.apps.values()),
            ends=await _ends(context),
            lag=list(found.lag(await services.lag.rows())),
            sources=list(found.sources(await services.sources.cached_rows())),
            counters=dict(services.runs.counters),
            instances=services.instances(),
            dead=await found.kept(await services.dead_letters.list(limit=DEAD_SHOWN)),
            parked=await found.kept(await services.parking.keys(most=PARKED_SHOWN)),
            rates=await _rates(context),
            failed=services.runs.failed(FAILED_SHOWN, found.function),
            logs=services.runs.logs(limit=LINES_SHOWN, of=found.function),
        )
    )


async def show_function(
    context: ApiContext, request: IncomingRequest, names: tuple[str, ...]
) -> Sheet:
    """One function whole."""
    services, name, found = context.services, names[0], await read_access_of(context, request)
    spec = services.supervisor.known(name)
    app = services.supervisor.apps.get(spec.app)
    return functions.page(
        functions.Shown(
            name=name,
            rows=list(rows_of_function(app, spec, services.runs.observed().get(name, ())))
            if app is not None
            else [],
            counters=services.runs.counters.get(name, Counters()),
            failed_start=found.failed_start(name, services.failed_start(name)),
            lag=list(found.lag(await services.lag.rows(name))),
            sources=list(found.sources(await services.sources.cached_rows(name))),
            schedules=await services.schedules.rows(name),
            dead=await found.kept(await services.dead_letters.list(name, limit=DEAD_SHOWN)),
            parked=await found.kept(await services.parking.keys(name, most=PARKED_SHOWN)),
            instances=[
                each for each in services.instances() if getattr(each, "function", "") == name
            ],
            runs=services.runs.recent(name, RUNS_SHOWN, found.function),
            logs=services.runs.logs(name, limit=LINES_SHOWN, of=found.function),
        ),
    )


async def list_runs(context: ApiContext, request: IncomingRequest, __: tuple[str, ...]) -> Sheet:
    """The latest runs, and what functions wrote."""
    runs, found = context.services.runs, await read_access_of(context, request)
    return functions.runs_page(
        runs.recent(None, RUNS_SHOWN, found.function),
        runs.logs(limit=10 * LINES_SHOWN, of=found.function),
    )


async def list_streams(context: ApiContext, _: IncomingRequest, __: tuple[str, ...]) -> Sheet:
    """Every stream with what it holds."""
    found = [
        await _held(context, spec)
        async for spec in Slices(context.services.clock).over(context.services.broker.streams())
    ]
    return records.list_page(found)


async def browse(context: ApiContext, request: IncomingRequest, names: tuple[str, ...]) -> Sheet:
    """A page of a stream's records: the latest, or from a place or cursor on."""
    broker, slices = context.services.broker, Slices(context.services.clock)
    spec = broker.stream(names[0])
    await authorize_reader(context, request, Owners(context).of_stream(spec.name))
    held = await _held(context, spec)
    only = request.number("partition", 0, high=1_000_000) if "partition" in request.query else None
    if (text := request.query.get("cursor")) is not None:
        cursor = parse_cursor(text, spec)
    elif (start := request.query.get("from")) is not None:
        cursor = await starting_cursor(broker, spec, only, place(start))
    else:
        cursor = await starting_cursor(broker, spec, only, "latest")
        back = max(LATEST // len(cursor), 1) if only is None else PAGE
        cursor = {each: max(held.extents[each][0], end - back) for each, end in cursor.items()}
        page = await read_page(broker, spec, cursor, back * len(cursor), slices)
        # What was read beyond a page is older than what is shown.
        return records.browse_page(_browsed(held, only, page.records[-PAGE:], page.cursor))
    page = await read_page(broker, spec, cursor, PAGE, slices)
    return records.browse_page(_browsed(held, only, page.records, page.cursor))


def _browsed(
    held: Held, only: int | None, found: list[dict[str, object]], after: dict[int, int]
) -> Browsed:
    newer = any(offset < held.extents[number][1] for number, offset in after.items())
    older = ""
    if only is not None and found:
        first, low = int(str(found[0]["offset"])), held.extents[only][0]
        older = cursor_text({only: max(low, first - PAGE)}) if first > low else ""
    return Browsed(
        held=held,
        partition=only,
        records=found,
        older=older,
        newer=cursor_text(after) if newer else "",
    )


async def show_event(
    context: ApiContext, request: IncomingRequest, names: tuple[str, ...]
) -> Sheet:
    """One event, and what each function has made of it."""
    at = position_of(*names)
    spec = context.services.broker.stream(at.stream)
    found = await explained(context, request, at)
    slices = Slices(context.services.clock)
    page = await read_page(context.services.broker, spec, {at.partition: at.offset}, 1, slices)
    record = next((each for each in page.records if each["offset"] == at.offset), {})
    return records.event_page(record, found)


async def list_triggers(
    context: ApiContext, request: IncomingRequest, __: tuple[str, ...]
) -> Sheet:
    """Show the triggers other than streams."""
    services = context.services
    apps = list(services.supervisor.apps.values())
    schedules = await services.schedules.rows()
    access = await read_access_of(context, request)
    sources = list(access.sources(await services.sources.cached_rows()))
    return triggers.triggers_page(apps, schedules, sources)


async def list_queues(context: ApiContext, _: IncomingRequest, __: tuple[str, ...]) -> Sheet:
    """Every queue with its readers."""
    return triggers.queues_page(await context.services.queues.rows())


async def list_failures(context: ApiContext, request: IncomingRequest, _: tuple[str, ...]) -> Sheet:
    """Parked keys, and a page of dead letters."""
    place_after = request.query.get("after", "")
    dead = await context.services.dead_letters.list(limit=PAGE, after=place_after)
    more = f"{dead[-1].function}@{dead[-1].position}" if len(dead) == PAGE else ""
    found = await read_access_of(context, request)
    parked = await context.services.parking.keys(most=PARKED_SHOWN)
    return failures.page(await found.kept(dead), await found.kept(parked), after=more)


async def show_letter(
    context: ApiContext, request: IncomingRequest, names: tuple[str, ...]
) -> Sheet:
    """One dead letter."""
    function, *where = names
    at = position_of(*where)
    owners = Owners(context)
    await authorize_reader(
        context, request, owners.of_stream(at.stream) | owners.of_function(function)
    )
    dead = await context.services.dead_letters.get(function, at)
    return failures.letter_page(dead, event_view(decode_event(dead.event)))


async def _held(context: ApiContext, spec: StreamSpec) -> Held:
    readers = context.services.supervisor.readers(spec.name)
    found = [
        await context.services.broker.extent(spec.name, each) for each in range(spec.partitions)
    ]
    extents = [(extent.low, extent.high, extent.bytes) for extent in found]
    return Held(spec=spec, extents=extents, readers=readers)


async def _ends(context: ApiContext) -> dict[str, int]:
    """Return the number of events appended to each stream, for at most `MAX_NODES` of them."""
    # More are not drawn, and each costs a read of all its partitions.
    found = [spec for spec in context.services.broker.streams() if not spec.name.startswith("_")]
    ends = {}
    async for spec in Slices(context.services.clock).over(found[:MAX_NODES]):
        extents = [
            await context.services.broker.extent(spec.name, at) for at in range(spec.partitions)
        ]
        ends[spec.name] = sum(extent.high for extent in extents)
    return ends


async def _rates(context: ApiContext) -> dict[tuple[str, str], float]:
    """Return the events per second by function and stream, for as many functions as can be drawn."""
    runs, now = context.services.runs, context.services.clock.now()
    names = sorted(runs.counters)[: 2 * MAX_NODES]
    return {
        (name, stream): rate
        async for name in Slices(context.services.clock).over(names)
        for stream, rate in rates(runs.recent(name, MAX_RUNS), now).items()
    }


def _frame(context: ApiContext) -> Frame:
    health = context.services.health()
    return Frame(
        version=_version(),
        ready=health.ready,
        reason=health.reason,
        apps=tuple(
            name for name in sorted(context.services.supervisor.apps) if name != overview.OWN
        ),
    )


@cache
def _version() -> str:
    try:
        return version("headrace")
    except PackageNotFoundError:
        return "unknown"
