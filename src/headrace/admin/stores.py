"""Stores of an app, for operators: those that it declares, and those with rows.

A store that is not declared any more keeps its rows, and so does that of a removed function.
"""

from __future__ import annotations

import msgspec

from headrace.model.effects import Space
from headrace.model.function import AppSpec
from headrace.storage.kv.base import Storage
from headrace.storage.kv.keys import after, pack


class StoreRow(msgspec.Struct, frozen=True):
    """A store.

    Attributes:
        store: Its name; for the unnamed store of a function, the function's full name.
        type: The type of its values.
        ttl: Seconds that a value is kept after it was written; None: until it is replaced.
        is_used: Whether the app declares it, or has such a function.
        is_empty: Whether it has no rows.
    """

    store: str
    type: str = "Any"
    ttl: float | None = None
    is_used: bool = True
    is_empty: bool = False


async def stores_of(storage: Storage, app: str, spec: AppSpec | None) -> list[StoreRow]:
    """Return the stores of an app by name; `spec` is the app, if it is deployed."""
    held = await _with_rows(storage, app)
    declared = {} if spec is None else {each.name: each for each in spec.stores}
    functions = set() if spec is None else {each.name for each in spec.functions}
    rows = []
    for name in sorted(held | declared.keys()):
        made = declared.get(name)
        rows.append(
            StoreRow(
                name,
                "Any" if made is None else made.type,
                None if made is None else made.ttl,
                is_used=made is not None or name in functions,
                is_empty=name not in held,
            )
        )
    return rows


async def _with_rows(storage: Storage, app: str) -> set[str]:
    """Return the names of the stores with rows, reading one row of each."""
    found: set[str] = set()
    prefix = pack(app)
    low, high = prefix, after(prefix)
    while page := await storage.scan(Space.STATE, low, high, limit=1):
        store, _, _ = page[0][0][len(prefix) :].partition(b"\x00")
        found.add(store.decode())
        # Jump over the rest of the store's rows, which may be millions.
        low = after(prefix + store + b"\x00") or b""
    return found
