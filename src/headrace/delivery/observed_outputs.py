"""Streams to which functions were seen to publish, kept over restarts, for the map.

In: outputs that `RunHistory` notes of each committed run. Out: a row for each function and stream, written when it is new
and read when the node starts. Rows of functions that are not deployed any more are deleted then. Their number is bounded.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from headrace.model.effects import Change, Delete, Put, Space
from headrace.model.errors import HeadraceError
from headrace.storage.kv.base import Storage, scan_pages
from headrace.telemetry.history import MAX_OUTPUTS, RunHistory

PAGE: Final = 1_000
_PREFIX: Final = b"outputs/"
_BEHIND: Final = b"outputs0"
_APART: Final = "\x00"


class ObservedOutputs:
    """Owned by the node; used by one task at a time."""

    def __init__(self, storage: Storage, runs: RunHistory) -> None:
        self._storage = storage
        self._runs = runs

    async def load(self, functions: Collection[str]) -> None:
        """Read the rows of these functions, and delete those of others."""
        async for page in scan_pages(self._storage, Space.META, _PREFIX, _BEHIND, limit=PAGE):
            gone: list[Delete] = []
            for key, _ in page:
                function, _, stream = key[len(_PREFIX) :].decode().partition(_APART)
                outputs = self._runs.counters[function].outputs if function in functions else None
                # Rows beyond the bound go as well: the history could not hold them.
                if outputs is None or len(outputs) >= MAX_OUTPUTS:
                    gone.append(Delete(Space.META, key))
                else:
                    outputs.add(stream)
            if gone:
                await self._storage.apply(Change(deletes=tuple(gone)))

    async def keep(self) -> None:
        """Write new outputs; those that could not be written are tried again at the next call."""
        # Taken first: outputs that are noted during the write belong to the next call.
        new, self._runs.new_outputs = self._runs.new_outputs, []
        if not new:
            return
        puts = tuple(Put(Space.META, _key(*each), b"") for each in new)
        try:
            await self._storage.apply(Change(puts=puts))
        except HeadraceError:
            self._runs.new_outputs += new
            raise


def _key(function: str, stream: str) -> bytes:
    return _PREFIX + f"{function}{_APART}{stream}".encode()
