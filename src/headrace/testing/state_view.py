"""An app's committed state as a test sees it: a mapping, read from the storage at each look."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from headrace.environment.clock import Clock
from headrace.model.codec import decode_state
from headrace.model.effects import Space
from headrace.storage.kv.base import Storage
from headrace.storage.kv.keys import after
from headrace.storage.state.rows import decode_row, state_key, state_name, state_prefix
from headrace.testing.hosts import at_once

MOST_KEYS = 10_000


class StateView:
    """An app's committed state, as a mapping that can only be read."""

    def __init__(self, storage: Storage, clock: Clock, app: str) -> None:
        self._storage = storage
        self._clock = clock
        self._app = app

    def __getitem__(self, key: str) -> Any:
        row = at_once(self._storage.get(Space.STATE, state_key(self._app, key)))
        value = None if row is None else self._open(row)
        if value is None:
            raise KeyError(key)
        return decode_state(value)

    def get(self, key: str, default: Any = None) -> Any:
        """The value, or `default` where there is none."""
        try:
            return self[key]
        except KeyError:
            return default

    def __contains__(self, key: str) -> bool:
        return self.get(key, self) is not self

    def __iter__(self) -> Iterator[str]:
        return iter(self.items())

    def items(self, prefix: str = "") -> dict[str, Any]:
        """Every key that starts with `prefix`, with its value."""
        low = state_prefix(self._app, prefix)
        rows = at_once(self._storage.scan(Space.STATE, low, after(low), limit=MOST_KEYS))
        found = ((state_name(self._app, key), self._open(row)) for key, row in rows)
        return {name: decode_state(value) for name, value in found if value is not None}

    def _open(self, row: bytes) -> bytes | None:
        _, expires, value = decode_row(row)
        return None if expires and expires <= self._clock.now() else value
