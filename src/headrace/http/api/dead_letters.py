"""Routes of trouble: dead letters, parked keys, and where an event is.

To redrive or discard everything has to be said (`{"all": true}`): an empty body changes nothing.
"""

from __future__ import annotations

import msgspec

from headrace.admin.explain import Explanation
from headrace.environment.time_slices import Slices
from headrace.http.context import ApiContext
from headrace.http.pipeline.api_routes import Routes
from headrace.http.pipeline.event_bodies import CHECKS, Payload, value_of
from headrace.http.pipeline.read_access import Owners, authorize_reader, read_access_of
from headrace.http.request import IncomingRequest
from headrace.http.response import Response, dead_view, json_list, json_response, view
from headrace.model.errors import Invalid
from headrace.model.event import Event
from headrace.model.record import Append, Position, encode_events
from headrace.storage.log.append_checks import check_append

MAX_PAGE = 1_000


class Chosen(Payload, forbid_unknown_fields=True):
    """Which dead letters: some, by position, or all of the function's; one may be given another value."""

    positions: list[str] | None = None
    all: bool = False


class Edited(Payload, forbid_unknown_fields=True, kw_only=True):
    """Which dead letter is to hold what."""

    position: str


class ChosenKey(msgspec.Struct, forbid_unknown_fields=True):
    """Which parked key: one, or all of the function's."""

    key: str | None = None
    all: bool = False


def add_routes(routes: Routes) -> None:
    """Put this file's handlers into the table."""
    routes.add("GET", "/dead", list_dead, query=("function", "limit", "after"))
    routes.add("GET", "/dead/{function}/{stream}/{partition}/{offset}", show_dead)
    routes.add("POST", "/dead/{function}/redrive", redrive_dead, body=Chosen)
    routes.add("POST", "/dead/{function}/edit", edit_dead, body=Edited)
    routes.add("POST", "/dead/{function}/discard", discard_dead, body=Chosen)
    routes.add("GET", "/parked", list_parked, query=("function",))
    routes.add("POST", "/parked/{function}/redrive", redrive_parked, body=ChosenKey)
    routes.add("POST", "/parked/{function}/discard", discard_parked, body=ChosenKey)
    routes.add("GET", "/explain/{stream}/{partition}/{offset}", explain)


async def list_dead(context: ApiContext, request: IncomingRequest, _: tuple[str, ...]) -> Response:
    """A page of dead letters, by function and position; those of private streams to who may read them."""
    limit = request.number("limit", 100, low=1, high=MAX_PAGE)
    function, place = request.query.get("function"), request.query.get("after", "")
    found = await context.services.dead_letters.list(function, limit=limit, after=place)
    if function is not None and not found and not place:
        # Dead letters outlive their function; a name without any may be a slip.
        context.services.supervisor.known(function)
    more = f"{found[-1].function}@{found[-1].position}" if len(found) == limit else ""
    shown = map(dead_view, await (await read_access_of(context, request)).kept(found))
    return await json_list("dead", shown, Slices(context.services.clock), after=more)


async def show_dead(
    context: ApiContext, request: IncomingRequest, names: tuple[str, ...]
) -> Response:
    """One dead letter."""
    function, *place = names
    at = position_of(*place)
    owners = Owners(context)
    await authorize_reader(
        context, request, owners.of_stream(at.stream) | owners.of_function(function)
    )
    return json_response(dead_view(await context.services.dead_letters.get(function, at)))


async def redrive_dead(
    context: ApiContext, request: IncomingRequest, names: tuple[str, ...]
) -> Response:
    """Hand dead letters to their function again, in order; one of them with another value, if there is one."""
    chosen: Chosen = await request.json(Chosen)
    positions = _positions(chosen)
    context.services.supervisor.known(names[0])
    value, by = None, ""
    if not chosen.is_empty:
        if positions is None or len(positions) != 1:
            raise Invalid("a new value is for one dead letter; name its position")
        value, by = _value(context, positions[0], chosen), await _who(context, request)
    count = await context.services.dead_letters.redrive(names[0], positions, value=value, by=by)
    return json_response({"redriven": count})


async def edit_dead(
    context: ApiContext, request: IncomingRequest, names: tuple[str, ...]
) -> Response:
    """Give a dead letter another value; what it was, when it changed and who changed it stay with it."""
    said: Edited = await request.json(Edited)
    at = _position(said.position)
    value = _value(context, at, said)
    dead = await context.services.dead_letters.edit(
        names[0], at, value, await _who(context, request)
    )
    return json_response(dead_view(dead))


def _value(context: ApiContext, at: Position, said: Payload) -> bytes:
    """The value that was sent, where the stream would take it.

    Raises:
        Invalid, TooLarge: It would not.
    """
    value, spec = value_of(said), context.services.broker.stream(at.stream)
    CHECKS[spec.codec](value)
    check_append(Append(at.stream, 0, 1, encode_events([Event(value)])), spec)
    return value


async def _who(context: ApiContext, request: IncomingRequest) -> str:
    """Who asks, in words: the operator, or the name of a token."""
    shown = request.header("authorization")
    if context.services.operator.shows(shown):
        return "operator"
    return f"token {(await context.services.tokens.shown(shown)).name}"


async def discard_dead(
    context: ApiContext, request: IncomingRequest, names: tuple[str, ...]
) -> Response:
    """Delete dead letters for good."""
    chosen: Chosen = await request.json(Chosen)
    if not chosen.is_empty:
        raise Invalid("what is deleted takes no value; leave it out")
    positions = _positions(chosen)
    return json_response(
        {"discarded": await context.services.dead_letters.discard(names[0], positions)}
    )


async def list_parked(
    context: ApiContext, request: IncomingRequest, _: tuple[str, ...]
) -> Response:
    """What waits behind a failure."""
    found = await context.services.parking.keys(request.query.get("function"))
    shown = map(view, await (await read_access_of(context, request)).kept(found))
    return await json_list("parked", shown, Slices(context.services.clock))


async def redrive_parked(
    context: ApiContext, request: IncomingRequest, names: tuple[str, ...]
) -> Response:
    """Let parked keys go on, in order."""
    key = _key(await request.json(ChosenKey))
    return json_response({"redriven": await context.services.parking.redrive(names[0], key)})


async def discard_parked(
    context: ApiContext, request: IncomingRequest, names: tuple[str, ...]
) -> Response:
    """Delete what waits, for good."""
    key = _key(await request.json(ChosenKey))
    return json_response({"discarded": await context.services.parking.discard(names[0], key)})


async def explain(
    context: ApiContext, request: IncomingRequest, names: tuple[str, ...]
) -> Response:
    """Where an event is, function by function."""
    at = position_of(*names)
    return json_response(view(await explained(context, request, at)))


async def explained(context: ApiContext, request: IncomingRequest, at: Position) -> Explanation:
    """Where an event is, with the causes that the request may see.

    Raises:
        Unauthenticated, Refused: It may not see the event.
        Unknown: There is no such event.
    """
    # Ask for the stream first: its error lists near names.
    context.services.broker.stream(at.stream)
    await authorize_reader(context, request, Owners(context).of_stream(at.stream))
    access = await read_access_of(context, request)
    found = await context.services.explainer.explain(at.stream, at.partition, at.offset)
    rows = [
        each if access.function(each.function) else msgspec.structs.replace(each, cause="")
        for each in found.functions
    ]
    return msgspec.structs.replace(found, functions=rows)


def position_of(stream: str, partition: str, offset: str) -> Position:
    """A position out of three texts.

    Raises:
        Invalid: Partition or offset is not a number.
    """
    for text in (partition, offset):
        if not (text.isascii() and text.isdigit()) or len(text) > 18:
            raise Invalid(
                f"`{stream}/{partition}/{offset}` is not a position; write `stream/partition/offset`, "
                "such as `orders/0/42`"
            )
    return Position(stream, int(partition), int(offset))


def _positions(chosen: Chosen) -> list[Position] | None:
    if chosen.all == (chosen.positions is not None):
        raise Invalid('say which: `{"positions": ["orders/0/42"]}` or `{"all": true}`')
    if chosen.positions is None:
        return None
    return [_position(text) for text in chosen.positions]


def _position(text: str) -> Position:
    parts = text.rsplit("/", 2)
    if len(parts) != 3:
        raise Invalid(f"`{text}` is not a position; write `stream/partition/offset`")
    return position_of(*parts)


def _key(chosen: ChosenKey) -> str | None:
    if chosen.all == (chosen.key is not None):
        raise Invalid('say which: `{"key": "..."}` or `{"all": true}`')
    return chosen.key
