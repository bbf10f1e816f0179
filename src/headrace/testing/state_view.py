"""A store's committed values, as a test sees them: a mapping, read from the storage at each look."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterator, Mapping
from typing import TypeVar

from headrace.environment.clock import Clock
from headrace.model.codec import open_state
from headrace.storage.kv.base import Storage
from headrace.storage.state.rows import StoreRows, decode_row
from headrace.testing.hosts import at_once

V = TypeVar("V")

PAGE = 1_000


class StateView(Mapping[str, V]):
    """A store's committed values, as a mapping that can only be read.

    Args:
        rows: Where they are.
        decode: Decodes a value at rest.
    """

    def __init__(
        self, storage: Storage, clock: Clock, rows: StoreRows, decode: Callable[[bytes], V]
    ) -> None:
        self._storage = storage
        self._clock = clock
        self._rows = rows
        self._decode = decode

    def __getitem__(self, key: str) -> V:
        row = at_once(self._storage.get(self._rows.space, self._rows.key(key)))
        value = None if row is None else self._open(row)
        if value is None:
            raise KeyError(key)
        return self._decode(value)

    def __iter__(self) -> Iterator[str]:
        return (key for key, _ in self._pairs(""))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return repr(dict(self))

    def items(self, prefix: str = "") -> ItemsView[str, V]:
        """Every key that starts with `prefix`, with its value."""
        return dict(self._pairs(prefix)).items()

    def _pairs(self, prefix: str) -> Iterator[tuple[str, V]]:
        begin = ""
        while True:
            low, high = self._rows.range(prefix, begin)
            page = at_once(self._storage.scan(self._rows.space, low, high, limit=PAGE))
            for key, row in page:
                begin = self._rows.name(key)
                if (value := self._open(row)) is not None:
                    yield begin, self._decode(value)
            if len(page) < PAGE:
                return

    def _open(self, row: bytes) -> bytes | None:
        _, expires, value = decode_row(row)
        return None if expires and expires <= self._clock.now() else open_state(value)[0]
