"""Stores as a running function names them: its own, its app's by name, and the platform's. Pure.

Two functions share a store only where their app declares it. Where the rows of a store lie is the
storage's affair (`storage/state/rows.py`): an app never names another's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from headrace.model.errors import Refused
from headrace.model.function import FunctionSpec
from headrace.model.outcome import StateRead, StateWrite

OWN: Final = ""
"""The store of the function that runs: `context.state`."""
WINDOWS: Final = "/windows"
"""The store of a window function's open windows. No name that an author may give begins so."""


class StoreAddress(NamedTuple):
    """Address of a store: an app, a function of it, and the name that the function uses for the store."""

    app: str
    function: str
    store: str = OWN

    @property
    def name(self) -> str:
        """The store's name among all those of its app: a function's own has the function's full name."""
        if self.store == OWN or self.store == WINDOWS:
            return self.function + self.store
        return self.store


def check_store(spec: FunctionSpec, store: str) -> None:
    """Pass, where a run of the function may use the store.

    Raises:
        Refused: Its app does not declare it.
    """
    if store in {OWN, *spec.stores} or (store == WINDOWS and spec.ends is not None):
        return
    raise Refused(
        f"`{spec.name}` used the store `{store:.64}`, which app `{spec.app}` does not declare; "
        f'declare it with `store("{store:.64}")`'
    )


def check_stores(
    spec: FunctionSpec, reads: Iterable[StateRead], writes: Iterable[StateWrite]
) -> None:
    """Pass, where a run of the function may have read and written so.

    Raises:
        Refused: One is of a store that its app does not declare.
    """
    for store in {each.store for each in reads} | {each.store for each in writes}:
        check_store(spec, store)
