"""The route of windows: closing by hand what is open."""

from __future__ import annotations

from typing import Annotated

import msgspec

from headrace.http.context import ApiContext
from headrace.http.pipeline.api_routes import Routes
from headrace.http.request import IncomingRequest
from headrace.http.response import Response, json_response, view


class FlushRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Which windows are to close.

    Attributes:
        partition: Of the stream that the function reads; None: all of them.
        key: Whose; null: those without a key; not given: all.
    """

    partition: Annotated[int, msgspec.Meta(ge=0)] | None = None
    key: str | msgspec.UnsetType | None = msgspec.UNSET


def add_routes(routes: Routes) -> None:
    """Put this file's handler into the table."""
    routes.add("POST", "/functions/{function}/flush", flush, body=FlushRequest)


async def flush(context: ApiContext, request: IncomingRequest, names: tuple[str, ...]) -> Response:
    """Close open windows; answered 202 where the function has not carried it out everywhere yet."""
    asked = await request.json(FlushRequest)
    found = await context.services.windows.flush(names[0], partition=asked.partition, key=asked.key)
    return json_response(view(found), status=202 if found.waiting else 200)
