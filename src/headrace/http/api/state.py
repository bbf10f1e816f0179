"""Routes that show what stores hold: the stores of an app, the keys of a store, the value of a key."""

from __future__ import annotations

from typing import Any

from headrace.admin.stores import StoreRow, stores_of
from headrace.environment.time_slices import Slices
from headrace.http.context import ApiContext
from headrace.http.pipeline.api_routes import Routes
from headrace.http.pipeline.read_access import Owners, authorize_reader
from headrace.http.request import IncomingRequest
from headrace.http.response import Response, json_list, json_response, rfc3339, view
from headrace.model.codec import decode_state, open_state, plain
from headrace.model.errors import Unknown
from headrace.model.near_names import near
from headrace.model.stores import StoreAddress
from headrace.storage.state.rows import decode_row, rows_of

MAX_PAGE = 1_000


def add_routes(routes: Routes) -> None:
    """Put this file's handlers into the table."""
    routes.add("GET", "/state/{app}", list_stores)
    routes.add("GET", "/state/{app}/{store}", list_state, query=("prefix", "limit", "after"))
    routes.add("GET", "/state/{app}/{store}/{key}", show_state)


async def list_stores(
    context: ApiContext, request: IncomingRequest, names: tuple[str, ...]
) -> Response:
    """An app's stores, declared or not; a function's own has the function's full name."""
    (app,) = names
    await _authorize_owner(context, request, app)
    found = await _stores(context, app)
    return await json_list("stores", map(view, found), Slices(context.services.clock))


async def list_state(
    context: ApiContext, request: IncomingRequest, names: tuple[str, ...]
) -> Response:
    """What a store holds by key; `after` is the last page's last key."""
    app, store = names
    await _authorize_owner(context, request, app)
    limit = request.number("limit", 100, low=1, high=MAX_PAGE)
    held = rows_of(StoreAddress(app, "", store))
    low, high = held.range(request.query.get("prefix", ""), request.query.get("after") or "")
    rows = await context.services.storage.scan(held.space, low, high, limit=limit)
    if not rows:
        await _check_known(context, app, store)
    now = context.services.clock.now()
    shown = (_entry(held.name(packed), row, now) for packed, row in rows)
    more = held.name(rows[-1][0]) if len(rows) == limit else ""
    return await json_list("state", filter(None, shown), Slices(context.services.clock), after=more)


async def show_state(
    context: ApiContext, request: IncomingRequest, names: tuple[str, ...]
) -> Response:
    """One key of a store."""
    app, store, key = names
    await _authorize_owner(context, request, app)
    held = rows_of(StoreAddress(app, "", store))
    row = await context.services.storage.get(held.space, held.key(key))
    entry = None if row is None else _entry(key, row, context.services.clock.now())
    if entry is None:
        await _check_known(context, app, store)
        raise Unknown(
            f"the store `{store}` of app `{app}` has nothing at `{key}`; `headrace state list {app} "
            f"{store}` shows its keys"
        )
    return json_response(entry)


async def _stores(context: ApiContext, app: str) -> list[StoreRow]:
    """Those of the app.

    Raises:
        Unknown: There is no such app, and none left anything here.
    """
    apps = context.services.supervisor.apps
    found = await stores_of(context.services.storage, app, apps.get(app))
    if not found and app not in apps:
        known = ", ".join(f"`{name}`" for name in sorted(apps)) or "none"
        raise Unknown(f"there is no app `{app}`{near(app, apps) or f'; deployed are: {known}'}")
    return found


async def _check_known(context: ApiContext, app: str, store: str) -> None:
    """Pass, where the app has such a store, or such a function.

    Raises:
        Unknown: It has not.
    """
    spec = context.services.supervisor.apps.get(app)
    functions = [] if spec is None else [each.name for each in spec.functions]
    known = [*(row.store for row in await _stores(context, app)), *functions]
    if store not in known:
        raise Unknown(
            f"app `{app}` has no store `{store}`{near(store, known)}; `headrace state list {app}` "
            "shows its stores"
        )


async def _authorize_owner(context: ApiContext, request: IncomingRequest, app: str) -> None:
    """Let state be read as the private streams are that it was made of.

    Raises:
        Unauthenticated, Refused: The request may not read those.
    """
    deployed = app in context.services.supervisor.apps
    owners = Owners(context).of_state(app) if deployed else frozenset({app})
    await authorize_reader(context, request, owners)


def _entry(key: str, row: bytes, now: int) -> dict[str, Any] | None:
    _, expires, value = decode_row(row)
    expires = expires or open_state(value)[1]
    if expires and expires <= now:
        return None
    entry: dict[str, Any] = {"key": key, "value": plain(decode_state(value)), "bytes": len(value)}
    if expires:
        entry["expires"] = rfc3339(expires)
    return entry
