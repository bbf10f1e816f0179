"""A host for executors: it keeps state in a dict, and takes what a run wrote as a commit does."""

from __future__ import annotations

from headrace.model.invocation import Invocation
from headrace.model.outcome import Range, Returned, Scanned


class Host:
    """State as a host keeps it, and what was asked of it."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[int, bytes]] = {}
        self.asked: list[list[str]] = []

    def read_state(
        self, function: str, store: str, keys: list[str]
    ) -> list[tuple[int, bytes | None]]:
        self.asked.append(keys)
        return [self.rows.get(key, (0, None)) for key in keys]

    def scan_state(self, function: str, store: str, prefix: str, begin: str, limit: int) -> Scanned:
        found = sorted(key for key in self.rows if key.startswith(prefix) and key > begin)
        page = found[:limit]
        last = page[-1] if len(page) < len(found) else None
        seen = Range(begin, last, len(page), b"all")
        return Scanned([(key, *self.rows[key]) for key in page], seen)

    def extend(self, invocation: Invocation, seconds: float) -> None:
        raise NotImplementedError

    def commit(self, returned: Returned, token: int) -> None:
        """Take the writes, as a commit does, having checked what was read."""
        for read in returned.reads:
            assert read.seen or self.rows.get(read.key, (0, None))[0] == read.version
        for write in returned.writes:
            if write.value is None:
                self.rows.pop(write.key, None)
            else:
                self.rows[write.key] = (token, write.value)
