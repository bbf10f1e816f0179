"""The routes of the pages a person looks at: each reads the rooms once, and hands on what they say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.metadata import PackageNotFoundError, version

from markupsafe import Markup

from headrace.delivery.parking import decode_event
from headrace.delivery.runs import MAX_RUNS, Counters
from headrace.faces.console import failures, functions, overview, records, sources
from headrace.faces.console.drawing import MAX_NODES
from headrace.faces.console.flow import Remembered, newest
from headrace.faces.console.frame import POLICY, Frame, document
from headrace.faces.console.overview import Overview
from headrace.faces.console.records import Browsed, Held
from headrace.faces.gateway.door import Door, Routes
from headrace.faces.gateway.errors import answer_error
from headrace.faces.gateway.proofs import prove_reader, readable
from headrace.faces.gateway.records import (
    cursor_text,
    parse_cursor,
    read_page,
    starting_cursor,
)
from headrace.faces.gateway.requests import Request
from headrace.faces.gateway.responses import Response, event_view, json_response
from headrace.faces.gateway.streams import place, readers_by_stream
from headrace.faces.gateway.trouble import held_by, position_of
from headrace.model.errors import HeadraceError
from headrace.model.function import StreamSpec
from headrace.security.operator import COOKIE
from headrace.security.tokens import Unauthenticated
from headrace.topology.map import rows_of
from headrace.world.slices import Slices

DEAD_SHOWN, RUNS_SHOWN, LINES_SHOWN = 20, 50, 30
PAGE = 50
LATEST = 200
"""Records that are looked at to find the latest ones of all partitions."""

Page = Callable[[Door, Request, tuple[str, ...]], Awaitable[Markup]]


def add_routes(routes: Routes) -> None:
    """Put this file's handlers into the table."""
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
        routes.add("GET", pattern, _shown(page))
    routes.add("GET", "/console/enter/{code}", enter)
    routes.add("POST", "/console/links", make_link)


async def make_link(door: Door, _: Request, __: tuple[str, ...]) -> Response:
    """A path that lets one browser into the console, once."""
    return json_response(
        {"path": f"/console/enter/{door.rooms.operator.link(door.rooms.entropy)}"}, status=201
    )


async def enter(door: Door, _: Request, names: tuple[str, ...]) -> Response:
    """Let a browser in by the code of its link, and know it from then on."""
    session = door.rooms.operator.enter(names[0], door.rooms.entropy)
    if session is None:
        raise Unauthenticated(
            "this link was used before, or is another node's; `headrace console` gives a new one"
        )
    cookie = f"{COOKIE}={session}; Path=/console; HttpOnly; SameSite=Strict"
    if door.scheme == "https":
        cookie += "; Secure"
    return Response(
        303, b"", b"text/plain",
        (
            (b"location", b"/console"), (b"set-cookie", cookie.encode()),
            (b"cache-control", b"no-store"), (b"referrer-policy", b"no-referrer"),
        ),
    )  # fmt: skip


def _shown(page: Page) -> Callable[[Door, Request, tuple[str, ...]], Awaitable[Response]]:
    """A handler that answers with a page, and with one that says so where something is not there."""

    async def handler(door: Door, request: Request, names: tuple[str, ...]) -> Response:
        status = 200
        try:
            html = await page(door, request, names)
        except HeadraceError as error:
            status = answer_error(error).status
            html = document(
                _frame(door), "", "That cannot be shown", Markup("<p>{}</p>").format(str(error))
            )
        return Response(
            status,
            html.encode(),
            b"text/html; charset=utf-8",
            (
                (b"content-security-policy", POLICY.encode()),
                (b"referrer-policy", b"no-referrer"),
                (b"x-frame-options", b"DENY"),
            ),
        )

    return handler


async def show_overview(door: Door, request: Request, __: tuple[str, ...]) -> Markup:
    """What runs here, how far it is, and what waits for a person."""
    rooms = door.rooms
    shown = Overview(
        frame=_frame(door),
        now=rooms.clock.now(),
        apps=list(rooms.dispatcher.apps.values()),
        ends=await _ends(door),
        lag=await rooms.lag.rows(),
        sources=await rooms.sources.at_hand(),
        counters=dict(rooms.runs.counters),
        instances=rooms.instances(),
        dead=await readable(door, request, await rooms.dead_letters.list(limit=DEAD_SHOWN)),
        parked=await readable(door, request, await rooms.parking.keys()),
        runs=_remembered(door),
        logs=rooms.runs.logs(limit=LINES_SHOWN),
    )
    pieces = Slices(rooms.clock).over(overview.pieces_of(shown))
    return overview.framed(shown.frame, [each async for each in pieces])


async def show_function(door: Door, request: Request, names: tuple[str, ...]) -> Markup:
    """One function whole."""
    rooms, name = door.rooms, names[0]
    rooms.dispatcher.known(name)
    apps = list(rooms.dispatcher.apps.values())
    return functions.page(
        _frame(door),
        functions.Shown(
            name=name,
            rows=[
                row async for row in Slices(rooms.clock).over(rows_of(apps)) if row.function == name
            ],
            counters=rooms.runs.counters.get(name, Counters()),
            lag=await rooms.lag.rows(name),
            sources=[row for row in await rooms.sources.at_hand() if row.function == name],
            schedules=await rooms.schedules.rows(name),
            dead=await readable(
                door, request, await rooms.dead_letters.list(name, limit=DEAD_SHOWN)
            ),
            parked=await readable(door, request, await rooms.parking.keys(name)),
            instances=[each for each in rooms.instances() if getattr(each, "function", "") == name],
            runs=rooms.runs.recent(name, RUNS_SHOWN),
            logs=rooms.runs.logs(name, limit=LINES_SHOWN),
        ),
    )


async def list_runs(door: Door, _: Request, __: tuple[str, ...]) -> Markup:
    """The latest runs, and what functions wrote."""
    found = newest(_remembered(door), RUNS_SHOWN)
    return functions.runs_page(_frame(door), found, door.rooms.runs.logs(limit=10 * LINES_SHOWN))


async def list_streams(door: Door, _: Request, __: tuple[str, ...]) -> Markup:
    """Every stream with what it holds."""
    readers = readers_by_stream(door)
    found = [
        await _held(door, spec, readers[spec.name])
        async for spec in Slices(door.rooms.clock).over(door.rooms.broker.streams())
    ]
    return records.list_page(_frame(door), found)


async def browse(door: Door, request: Request, names: tuple[str, ...]) -> Markup:
    """A page of a stream's records: the latest, or from a place or cursor on."""
    broker = door.rooms.broker
    spec = broker.stream(names[0])
    await prove_reader(door, request, spec)
    held = await _held(door, spec, readers_by_stream(door)[spec.name])
    only = request.number("partition", 0, high=1_000_000) if "partition" in request.query else None
    if (text := request.query.get("cursor")) is not None:
        cursor = parse_cursor(text, spec)
    elif (start := request.query.get("from")) is not None:
        cursor = await starting_cursor(broker, spec, only, place(start))
    else:
        cursor = await starting_cursor(broker, spec, only, "latest")
        back = max(LATEST // len(cursor), 1) if only is None else PAGE
        cursor = {each: max(held.extents[each][0], end - back) for each, end in cursor.items()}
        page = await read_page(broker, spec, cursor, back * len(cursor))
        # What was read beyond a page is older than what is shown.
        return records.browse_page(
            _frame(door), _browsed(held, only, page.records[-PAGE:], page.cursor)
        )
    page = await read_page(broker, spec, cursor, PAGE)
    return records.browse_page(_frame(door), _browsed(held, only, page.records, page.cursor))


def _browsed(
    held: Held, only: int | None, found: list[dict[str, object]], after: dict[int, int]
) -> Browsed:
    newer = any(offset < held.extents[number][1] for number, offset in after.items())
    older = ""
    if only is not None and found:
        first, low = int(str(found[0]["offset"])), held.extents[only][0]
        older = cursor_text({only: max(low, first - PAGE)}) if first > low else ""
    return Browsed(
        held=held, partition=only, records=found, older=older,
        newer=cursor_text(after) if newer else "",
    )  # fmt: skip


async def show_event(door: Door, request: Request, names: tuple[str, ...]) -> Markup:
    """One event, and what each function has made of it."""
    at = position_of(*names)
    spec = door.rooms.broker.stream(at.stream)
    await prove_reader(door, request, spec)
    found = await door.rooms.explainer.explain(at.stream, at.partition, at.offset)
    page = await read_page(door.rooms.broker, spec, {at.partition: at.offset}, 1)
    record = next((each for each in page.records if each["offset"] == at.offset), {})
    return records.event_page(_frame(door), record, found)


async def list_triggers(door: Door, _: Request, __: tuple[str, ...]) -> Markup:
    """What sets functions off beside streams."""
    rooms = door.rooms
    apps = list(rooms.dispatcher.apps.values())
    schedules = await rooms.schedules.rows()
    return sources.triggers_page(_frame(door), apps, schedules, await rooms.sources.at_hand())


async def list_queues(door: Door, _: Request, __: tuple[str, ...]) -> Markup:
    """Every queue with its readers."""
    return sources.queues_page(_frame(door), await door.rooms.queues.rows())


async def list_failures(door: Door, request: Request, _: tuple[str, ...]) -> Markup:
    """Parked keys, and a page of dead letters."""
    place_after = request.query.get("after", "")
    dead = await door.rooms.dead_letters.list(limit=PAGE, after=place_after)
    more = f"{dead[-1].function}@{dead[-1].position}" if len(dead) == PAGE else ""
    dead = await readable(door, request, dead)
    parked = await readable(door, request, await door.rooms.parking.keys())
    return failures.page(_frame(door), dead, parked[:1_000], after=more)


async def show_letter(door: Door, request: Request, names: tuple[str, ...]) -> Markup:
    """One dead letter."""
    function, *where = names
    at = position_of(*where)
    await prove_reader(door, request, *held_by(door, at.stream))
    dead = await door.rooms.dead_letters.get(function, at)
    return failures.letter_page(_frame(door), dead, event_view(decode_event(dead.event)))


async def _held(door: Door, spec: StreamSpec, readers: list[str]) -> Held:
    found = [await door.rooms.broker.extent(spec.name, each) for each in range(spec.partitions)]
    extents = [(extent.low, extent.high, extent.bytes) for extent in found]
    return Held(spec=spec, extents=extents, readers=readers)


async def _ends(door: Door) -> dict[str, int]:
    """How many events each stream took that can be drawn; of more streams than that none is."""
    found = [spec for spec in door.rooms.broker.streams() if not spec.name.startswith("_")]
    ends = {}
    for spec in found[:MAX_NODES]:
        extents = [await door.rooms.broker.extent(spec.name, at) for at in range(spec.partitions)]
        ends[spec.name] = sum(extent.high for extent in extents)
    return ends


def _remembered(door: Door) -> Remembered:
    """The runs of so many functions as can be drawn; of more nobody looks at each."""
    runs = door.rooms.runs
    names = sorted(runs.counters)[: 2 * MAX_NODES]
    return {name: runs.recent(name, MAX_RUNS) for name in names}


def _frame(door: Door) -> Frame:
    health = door.rooms.health()
    return Frame(
        version=_version(),
        ready=health.ready,
        reason=health.reason,
        apps=tuple(name for name in sorted(door.rooms.dispatcher.apps) if name != overview.OWN),
    )


def _version() -> str:
    try:
        return version("headrace")
    except PackageNotFoundError:
        return "unknown"
