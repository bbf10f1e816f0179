"""Routes of trouble: dead letters, parked keys, and where an event is.

To redrive or discard everything has to be said (`{"all": true}`): an empty body changes nothing.
"""

from __future__ import annotations

import msgspec

from headrace.admin.explain import Explanation
from headrace.environment.time_slices import Slices
from headrace.http.context import ApiContext, Routes
from headrace.http.pipeline.authentication import Owners, prove_reader, sight_of
from headrace.http.pipeline.event_bodies import CHECKS, Payload, value_of
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
    routes.add("GET", "/dead", list_dead)
    routes.add("GET", "/dead/{function}/{stream}/{partition}/{offset}", show_dead)
    routes.add("POST", "/dead/{function}/redrive", redrive_dead)
    routes.add("POST", "/dead/{function}/edit", edit_dead)
    routes.add("POST", "/dead/{function}/discard", discard_dead)
    routes.add("GET", "/parked", list_parked)
    routes.add("POST", "/parked/{function}/redrive", redrive_parked)
    routes.add("POST", "/parked/{function}/discard", discard_parked)
    routes.add("GET", "/explain/{stream}/{partition}/{offset}", explain)


async def list_dead(door: ApiContext, request: IncomingRequest, _: tuple[str, ...]) -> Response:
    """A page of dead letters, by function and position; those of private streams to who may read them."""
    limit = request.number("limit", 100, low=1, high=MAX_PAGE)
    function, place = request.query.get("function"), request.query.get("after", "")
    found = await door.rooms.dead_letters.list(function, limit=limit, after=place)
    if function is not None and not found and not place:
        # Dead letters outlive their function; a name without any may be a slip.
        door.rooms.dispatcher.known(function)
    more = f"{found[-1].function}@{found[-1].position}" if len(found) == limit else ""
    shown = map(dead_view, await (await sight_of(door, request)).kept(found))
    return await json_list("dead", shown, Slices(door.rooms.clock), after=more)


async def show_dead(door: ApiContext, request: IncomingRequest, names: tuple[str, ...]) -> Response:
    """One dead letter."""
    function, *place = names
    at = position_of(*place)
    owners = Owners(door)
    await prove_reader(door, request, owners.of_stream(at.stream) | owners.of_function(function))
    return json_response(dead_view(await door.rooms.dead_letters.get(function, at)))


async def redrive_dead(
    door: ApiContext, request: IncomingRequest, names: tuple[str, ...]
) -> Response:
    """Hand dead letters to their function again, in order; one of them with another value, if there is one."""
    chosen: Chosen = await request.json(Chosen)
    positions = _positions(chosen)
    door.rooms.dispatcher.known(names[0])
    value, by = None, ""
    if not chosen.is_empty:
        if positions is None or len(positions) != 1:
            raise Invalid("a new value is for one dead letter; name its position")
        value, by = _value(door, positions[0], chosen), await _who(door, request)
    count = await door.rooms.dead_letters.redrive(names[0], positions, value=value, by=by)
    return json_response({"redriven": count})


async def edit_dead(door: ApiContext, request: IncomingRequest, names: tuple[str, ...]) -> Response:
    """Give a dead letter another value; what it was, when it changed and by whom stays with it."""
    said: Edited = await request.json(Edited)
    at = _position(said.position)
    value = _value(door, at, said)
    dead = await door.rooms.dead_letters.edit(names[0], at, value, await _who(door, request))
    return json_response(dead_view(dead))


def _value(door: ApiContext, at: Position, said: Payload) -> bytes:
    """The value that was sent, where the stream would take it.

    Raises:
        Invalid, TooLarge: It would not.
    """
    value, spec = value_of(said), door.rooms.broker.stream(at.stream)
    CHECKS[spec.codec](value)
    check_append(Append(at.stream, 0, 1, encode_events([Event(value)])), spec)
    return value


async def _who(door: ApiContext, request: IncomingRequest) -> str:
    """Who asks, in words: the operator, or the name of a token."""
    shown = request.header("authorization")
    if door.rooms.operator.shows(shown):
        return "operator"
    return f"token {(await door.rooms.tokens.shown(shown)).name}"


async def discard_dead(
    door: ApiContext, request: IncomingRequest, names: tuple[str, ...]
) -> Response:
    """Delete dead letters for good."""
    chosen: Chosen = await request.json(Chosen)
    if not chosen.is_empty:
        raise Invalid("what is deleted takes no value; leave it out")
    positions = _positions(chosen)
    return json_response({"discarded": await door.rooms.dead_letters.discard(names[0], positions)})


async def list_parked(door: ApiContext, request: IncomingRequest, _: tuple[str, ...]) -> Response:
    """What waits behind a failure."""
    found = await door.rooms.parking.keys(request.query.get("function"))
    shown = map(view, await (await sight_of(door, request)).kept(found))
    return await json_list("parked", shown, Slices(door.rooms.clock))


async def redrive_parked(
    door: ApiContext, request: IncomingRequest, names: tuple[str, ...]
) -> Response:
    """Let parked keys go on, in order."""
    key = _key(await request.json(ChosenKey))
    return json_response({"redriven": await door.rooms.parking.redrive(names[0], key)})


async def discard_parked(
    door: ApiContext, request: IncomingRequest, names: tuple[str, ...]
) -> Response:
    """Delete what waits, for good."""
    key = _key(await request.json(ChosenKey))
    return json_response({"discarded": await door.rooms.parking.discard(names[0], key)})


async def explain(door: ApiContext, request: IncomingRequest, names: tuple[str, ...]) -> Response:
    """Where an event is, function by function."""
    at = position_of(*names)
    return json_response(view(await explained(door, request, at)))


async def explained(door: ApiContext, request: IncomingRequest, at: Position) -> Explanation:
    """Where an event is, with the causes that the request may see.

    Raises:
        Unauthenticated, Refused: It may not see the event.
        Unknown: There is no such event.
    """
    # Ask for the stream first: its error lists near names.
    door.rooms.broker.stream(at.stream)
    await prove_reader(door, request, Owners(door).of_stream(at.stream))
    sight = await sight_of(door, request)
    found = await door.rooms.explainer.explain(at.stream, at.partition, at.offset)
    rows = [
        each if sight.function(each.function) else msgspec.structs.replace(each, cause="")
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
