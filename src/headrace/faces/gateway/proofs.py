"""What a request shows to be let in: the operator's key, a token, or in the console a session.

A session is the operator's browser, and only looks at the console. Its cookie goes to no other path; a page of
another origin, or a script, that asks with it is refused by what browsers say of each request.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from headrace.delivery.parking import ParkedKey
from headrace.faces.gateway.door import Door
from headrace.faces.gateway.requests import Request
from headrace.model.effects import DeadEvent
from headrace.model.errors import Refused
from headrace.model.function import StreamSpec
from headrace.security.tokens import Unauthenticated

Kept = TypeVar("Kept", DeadEvent, ParkedKey)
CONSOLE = "/console"
_SITES = (None, b"none", b"same-origin")


async def prove(door: Door, request: Request, scope: str) -> None:
    """Pass, where the request shows that it may.

    Raises:
        Unauthenticated, Refused: It does not.
    """
    shown = request.header("authorization")
    if not (door.rooms.operator.shows(shown) or _is_session(door, request)):
        await door.rooms.tokens.check(shown, scope)


async def prove_reader(door: Door, request: Request, *streams: StreamSpec) -> None:
    """Pass, where the request may see what these streams hold: private ones are their app's.

    Raises:
        Unauthenticated, Refused: It may not.
    """
    for stream in streams:
        if stream.private:
            await prove(door, request, f"read:{stream.owner}")


async def proves(door: Door, request: Request, scope: str) -> bool:
    """Whether the request shows that it may."""
    try:
        await prove(door, request, scope)
    except (Unauthenticated, Refused):
        return False
    return True


async def readable(door: Door, request: Request, found: Sequence[Kept]) -> list[Kept]:
    """Of what is kept of streams, such as dead letters: what the request may see."""
    owners = {spec.name: spec.owner for spec in door.rooms.broker.streams() if spec.private}
    asked = {owners[each] for each in map(_stream_of, found) if each in owners}
    shut = {owner for owner in asked if not await proves(door, request, f"read:{owner}")}
    return [each for each in found if owners.get(_stream_of(each)) not in shut]


def _stream_of(kept: DeadEvent | ParkedKey) -> str:
    return kept.position.stream if isinstance(kept, DeadEvent) else kept.stream


def _is_session(door: Door, request: Request) -> bool:
    """Whether the operator's browser goes to a page of the console by itself."""
    headers = request.headers
    return (
        request.method in {"GET", "HEAD"}
        and (request.path == CONSOLE or request.path.startswith(f"{CONSOLE}/"))
        and headers.get(b"sec-fetch-dest", b"document") == b"document"
        and headers.get(b"sec-fetch-site") in _SITES
        and door.rooms.operator.knows(request.header("cookie"))
    )
