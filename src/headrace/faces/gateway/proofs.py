"""What a request shows to be let in: the operator's key, a token, or in the console a session.

A session is the operator's browser, and only looks at the console. Its cookie goes to no other path; a page of
another origin, or a script, that asks with it is refused by what browsers say of each request.
"""

from __future__ import annotations

from headrace.faces.gateway.door import Door
from headrace.faces.gateway.requests import Request
from headrace.model.function import StreamSpec

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
