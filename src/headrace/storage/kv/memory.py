"""The storage twin: the same promises, kept in sorted dictionaries, gone with the process.

Comes in: changes, and a hook through which a simulation delays, fails or "crashes" a commit. Its
methods never suspend unless that hook does, so a run on virtual time is the same every time. What
a log keeps besides the maps is in `log_contents`, which outlives the log as a disk would.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Awaitable, Callable, Sequence

from headrace.environment import failpoints
from headrace.environment.clock import Clock
from headrace.model.effects import Change, Space
from headrace.model.errors import Unavailable
from headrace.storage.kv.base import Applied
from headrace.storage.kv.change_checks import Overlay, judge, overlay_change
from headrace.storage.kv.log_appends import Appender
from headrace.storage.kv.read_limits import weigh, within

Faults = Callable[[str], Awaitable[None] | None]


class _Map:
    """One space: values by key, and the keys in order."""

    __slots__ = ("keys", "values")

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self.keys: list[bytes] = []

    def set(self, key: bytes, value: bytes | None) -> None:
        if value is not None:
            if key not in self.values:
                # A dictionary keeps the order of insertion, and scans need that of the keys.
                insort(self.keys, key)
            self.values[key] = value
        elif self.values.pop(key, None) is not None:
            del self.keys[bisect_left(self.keys, key)]


class MemoryStorage:
    """Keeps everything in memory. Used on the loop's thread."""

    def __init__(self, clock: Clock, *, faults: Faults | None = None) -> None:
        """Begin empty.

        Args:
            clock: The source of time.
            faults: Called with `before` and `after` around the moment a change lands; what it
                raises is raised to the caller, what it returns is awaited.
        """
        self.clock = clock
        self.faults = faults
        self.log_contents: dict[str, object] = {}
        self._maps = {space: _Map() for space in Space}
        self._appender: Appender | None = None
        self._closed = False

    def connect(self) -> MemoryStorage:
        """Another node's connection to the same rows, with a separate log or outbox."""
        other = MemoryStorage(self.clock, faults=self.faults)
        other.log_contents, other._maps = self.log_contents, self._maps
        return other

    def attach(self, appender: Appender) -> None:
        """Let this log take the appends of changes; it replaces one that has crashed."""
        self._appender = appender

    def detach(self) -> None:
        """The log is closed."""
        self._appender = None

    async def apply(self, change: Change) -> Applied:
        """Let `change` land, all of it or nothing; see the port."""
        self._require_open()
        # The hook may wait, and the store may be closed or "crash" meanwhile: hence the second
        # check.
        await self._fault("before")
        self._require_open()
        result = self._land(change)
        # An error from here on means a commit whose answer was lost: it landed, and its caller
        # cannot know.
        await self._fault("after")
        return result

    def _land(self, change: Change) -> Applied:
        failpoints.hit("commit:before-write")
        judge(change, {}, self._look, self._scan)
        result = Applied()
        if change.appends:
            if self._appender is None:
                raise Unavailable("no log is open in this store: nothing was stored")
            result = self._appender.stage(change.appends, self._look)
            # No group here, so what is staged lands at once; nothing between can fail and need
            # `dropped`.
            self._appender.landed()
        overlay: Overlay = {}
        overlay_change(change, result, overlay)
        for space, values in overlay.items():
            for key, value in values.items():
                self._maps[space].set(key, value)
        failpoints.hit("commit:after-fsync")
        return result

    def _look(self, space: Space, key: bytes) -> bytes | None:
        return self._maps[space].values.get(key)

    async def _fault(self, moment: str) -> None:
        if self.faults is not None and (waiting := self.faults(moment)) is not None:
            await waiting

    async def get(self, space: Space, key: bytes) -> bytes | None:
        """The value at `key`."""
        self._require_open()
        return self._look(space, key)

    async def get_many(
        self, space: Space, keys: Sequence[bytes], *, most: int | None = None
    ) -> list[bytes | None]:
        """The values at `keys`, in the order of `keys`."""
        self._require_open()
        found = [self._look(space, key) for key in keys]
        if most is not None:
            weigh(found, most)
        return found

    async def scan(
        self,
        space: Space,
        low: bytes,
        high: bytes | None = None,
        *,
        limit: int = 1_000,
        most: int | None = None,
    ) -> list[tuple[bytes, bytes]]:
        """Up to `limit` pairs in ascending order."""
        self._require_open()
        found = self._scan(space, low, high, limit)
        return found if most is None else list(within(found, most))

    def _scan(
        self, space: Space, low: bytes, high: bytes | None, limit: int
    ) -> list[tuple[bytes, bytes]]:
        held = self._maps[space]
        start = bisect_left(held.keys, low)
        end = len(held.keys) if high is None else bisect_left(held.keys, high)
        return [(key, held.values[key]) for key in held.keys[start : min(end, start + limit)]]

    def _require_open(self) -> None:
        if self._closed:
            raise Unavailable("the store in memory is closed")

    async def settled(self) -> None:
        """Changes land as they are handed in: there is nothing to wait for."""

    async def close(self) -> None:
        """Refuse everything from now on; what it held can still be looked at after `reopen`."""
        self._closed = True

    def reopen(self) -> None:
        """Start again over what was kept, as a process does over its disk."""
        self._closed = False
        # The former log crashed with its process: another one attaches itself on opening.
        self._appender = None
