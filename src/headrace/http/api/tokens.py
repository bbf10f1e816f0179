"""Routes of tokens, of what became of a kept request, and of what the routes are (OpenAPI)."""

from __future__ import annotations

import msgspec

from headrace.environment.time_slices import Slices
from headrace.http.context import ApiContext
from headrace.http.pipeline.api_routes import Routes
from headrace.http.request import IncomingRequest
from headrace.http.response import Response, json_list, json_response, rfc3339
from headrace.model.durations import MaybeSeconds, keep_seconds
from headrace.model.errors import Unknown
from headrace.model.policy import MAX_LIFETIME_S
from headrace.model.policy_struct import default
from headrace.security.tokens import Token

_WORDS = {"committed": "committed", "dead": "dead"}


class TokenRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A token that is to be made."""

    name: str
    scopes: list[str]
    lifetime: MaybeSeconds = default(None)

    def __post_init__(self) -> None:
        """Keep the lifetime as seconds."""
        keep_seconds(self, "lifetime", low=0.001, high=MAX_LIFETIME_S, what="`lifetime`")


def add_routes(routes: Routes) -> None:
    """Put this file's handlers into the table."""
    routes.add("POST", "/tokens", create, body=TokenRequest)
    routes.add("GET", "/tokens", list_tokens)
    routes.add("DELETE", "/tokens/{token}", revoke)
    routes.add("GET", "/requests/{request}", status)


async def create(context: ApiContext, request: IncomingRequest, _: tuple[str, ...]) -> Response:
    """Make a token, and show it this once."""
    wish: TokenRequest = await request.json(TokenRequest)
    token, text = await context.services.tokens.create(
        wish.name, wish.scopes, lifetime=wish.lifetime
    )
    return json_response({**_shown(token), "token": text}, status=201)


async def list_tokens(context: ApiContext, _: IncomingRequest, __: tuple[str, ...]) -> Response:
    """Every token, without what makes it one."""
    tokens = await context.services.tokens.all()
    return await json_list("tokens", map(_shown, tokens), Slices(context.services.clock))


async def revoke(context: ApiContext, _: IncomingRequest, names: tuple[str, ...]) -> Response:
    """Let a token count no more."""
    return json_response(_shown(await context.services.tokens.revoke(names[0])))


def _shown(token: Token) -> dict[str, object]:
    return {
        "id": token.id,
        "name": token.name,
        "scopes": token.scopes,
        "created": rfc3339(token.created),
        "expires": rfc3339(token.expires),
        "revoked": rfc3339(token.revoked),
    }


async def status(context: ApiContext, __: IncomingRequest, names: tuple[str, ...]) -> Response:
    """What became of a request that was kept: `waiting`, `committed` or `dead`."""
    text, _, mark = names[0].rpartition("-")
    stream, _, offset = text.rpartition("-")
    stream, _, partition = stream.rpartition("-")
    if (
        not (partition.isdigit() and offset.isdigit() and len(offset) < 19 and len(partition) < 9)
        or not mark.isascii()
        or not await context.services.address_signer.is_ours(text, mark)
    ):
        raise Unknown(f"there is no run `{names[0]:.100}`; use the `Location` a 202 answer gave")
    found = await context.services.explainer.explain(stream, int(partition), int(offset))
    rows = found.functions
    where = rows[0] if rows else None
    detail = where.status if where is not None else "withdrawn"
    return json_response(
        {
            "id": names[0],
            "status": _WORDS.get(detail, "waiting"),
            "detail": detail,
            "attempts": where.attempts if where is not None else 0,
            "next_attempt": rfc3339(where.next_attempt if where is not None else 0),
            "accepted": rfc3339(found.appended),
        }
    )
