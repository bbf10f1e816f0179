"""One invocation's reads and writes of one store: what was seen, what is to change, and for which event.

In: reads of the handler, answered from its own writes, the instance's cache, or the host. Out: the versions that the
effects rely on, and the last kept write of every key. It detects kept effects that were computed from dropped ones.
"""

from __future__ import annotations

from _thread import RLock
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from headrace.model.codec import open_state
from headrace.model.invocation import Invocation
from headrace.model.outcome import Cause, Scanned, StateRead, StateWrite
from headrace.model.stores import StoreAddress
from headrace.runtime.child.state_cache import StateCache


class StateHost(Protocol):
    """Questions of an instance to its host; each call blocks until the answer."""

    def read_state(
        self, function: str, store: str, keys: list[str]
    ) -> list[tuple[int, bytes | None]]:
        """Return version (0: absent) and value of each key of a store, as `function` names it."""
        ...

    def scan_state(self, function: str, store: str, prefix: str, begin: str, limit: int) -> Scanned:
        """Return the keys after `begin` that start with `prefix`, ascending, and the range that was read."""
        ...

    def extend(self, invocation: Invocation, seconds: float) -> None:
        """Let the run take `seconds` from now; does not wait for an answer."""
        ...


class Notes(Protocol):
    """The recorder, as far as the ledger needs it."""

    dropped: dict[int, Cause]
    lock: RLock

    def enter(self, what: str, of: object = "") -> int:
        """Take the lock; what is noted until it is released belongs to this tag."""
        ...

    def check_process(self, what: str, of: object = "") -> None:
        """Return, unless this is a process that the handler forked."""
        ...


PAGE: Final = 1_000
"""Rows of one answer for a range."""

# For which event a key was written, the value (None deletes), and when it expires. A plain tuple:
# making one costs a sixth of a named one, and a function that counts makes one an event.
Written = tuple[int, bytes | None, int]


class StateLedger:
    """Made by the recorder when a handler first asks for the store; implements `sdk.state.StateAccess`.

    The writes of a key are a stack: if an event fails, its writes no longer count, and the write
    below is current again.
    """

    __slots__ = (
        "_base",
        "_cache",
        "_dropped",
        "_edges",
        "_host",
        "_invocation",
        "_notes",
        "_place",
        "_scans",
        "_store",
        "_versions",
        "_writes",
    )

    def __init__(
        self,
        store: str,
        notes: Notes,
        invocation: Invocation,
        cache: StateCache,
        host: StateHost,
    ) -> None:
        self._store = store
        # Functions of an app may share a process and its cache, while each has a separate unnamed
        # store.
        self._place = StoreAddress("", invocation.function, store).name
        self._notes = notes
        self._dropped = notes.dropped
        self._invocation = invocation
        self._cache = cache
        self._host = host
        self._versions: dict[str, int] = {}
        self._base: dict[str, bytes | None] = {}
        self._writes: dict[str, list[Written]] = {}
        self._edges: set[tuple[int, int]] = set()
        self._scans: dict[StateRead, None] = {}

    @property
    def now(self) -> int:
        """Return the time of dispatch of the invocation, in microseconds since the epoch."""
        return self._invocation.now

    def read(self, key: str) -> bytes | None:
        """Return the value as this invocation sees it."""
        notes = self._notes
        tag = notes.enter("reading state", key)
        try:
            return self._read(key, tag)
        finally:
            notes.lock.release()

    def read_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the values; fetch all unknown ones with one question."""
        notes = self._notes
        tag = notes.enter("reading state", keys)
        try:
            return self._read_many(keys, tag)
        finally:
            notes.lock.release()

    def write(self, key: str, value: bytes | None, expires: int) -> None:
        """Note a change."""
        notes = self._notes
        tag = notes.enter("writing state", key)
        try:
            self._write(key, (tag, value, expires))
        finally:
            notes.lock.release()

    def change(self, key: str, change: Callable[[bytes | None], tuple[bytes, int]]) -> None:
        """Note a change that depends on the value; the lock is held throughout."""
        notes = self._notes
        tag = notes.enter("changing state", key)
        try:
            value, expires = change(self._read(key, tag))
            # `change` is the author's code, which may have forked: the child must not write.
            notes.check_process("changing state", key)
            self._write(key, (tag, value, expires))
        finally:
            notes.lock.release()

    def scan(self, prefix: str, begin: str) -> tuple[list[tuple[str, bytes]], str | None]:
        """Return a page of the keys after `begin` that start with `prefix`, and the start of the next page.

        The page includes this invocation's changes.
        """
        notes = self._notes
        tag = notes.enter("listing state", prefix)
        try:
            return self._scan(prefix, begin, tag)
        finally:
            notes.lock.release()

    # -- with the lock held -----------------------------------------------------------------

    def _read(self, key: str, tag: int) -> bytes | None:
        stack = self._writes.get(key)
        if stack:
            written: Written | None = stack[-1]
            if stack[-1][0] in self._dropped:
                written = self._written(key)
            if written is not None:
                # One event's value depends on another's write: if that event fails, this effect
                # cannot be kept.
                if written[0] != tag:
                    self._edges.add((tag, written[0]))
                return written[1]
        if key in self._base:
            return self._base[key]
        known = self._cache.get((self._place, key))
        if known is None:
            known = self._ask([key])[0]
            self._cache.put((self._place, key), *known)
        return self._note(key, *known)

    def _write(self, key: str, written: Written) -> None:
        stack = self._writes.get(key)
        if not stack:
            self._writes[key] = [written]
        # Only the last write of an event counts, so a counter in a loop does not grow the stack.
        elif stack[-1][0] == written[0]:
            stack[-1] = written
        else:
            stack.append(written)

    def _read_many(self, keys: Sequence[str], tag: int) -> list[bytes | None]:
        missing = [
            key
            for key in dict.fromkeys(keys)
            if key not in self._base
            and self._written(key) is None
            and self._cache.get((self._place, key)) is None
        ]
        if missing:
            answers = self._ask(missing)
            for key, (version, raw) in zip(missing, answers, strict=True):
                self._cache.put((self._place, key), version, raw)
                self._note(key, version, raw)
        return [self._read(key, tag) for key in keys]

    def _ask(self, keys: list[str]) -> list[tuple[int, bytes | None]]:
        return self._host.read_state(self._invocation.function, self._store, keys)

    def _scan(
        self, prefix: str, begin: str, tag: int
    ) -> tuple[list[tuple[str, bytes]], str | None]:
        scanned = self._host.scan_state(self._invocation.function, self._store, prefix, begin, PAGE)
        self._scans[StateRead(prefix, 0, scanned.seen, self._store)] = None
        last = scanned.seen.last
        # Rows after `last` belong to the next page: a change there must not appear twice.
        changed = [
            key
            for key in self._writes
            if key.startswith(prefix)
            and begin < key
            and (last is None or key <= last)
            and self._written(key) is not None
        ]
        found: dict[str, bytes | None] = {}
        for key, version, raw in scanned.rows:
            # The first version seen is the one that the commit checks; a later page must not
            # replace it.
            if key not in self._base and self._written(key) is None:
                self._cache.put((self._place, key), version, raw)
                self._note(key, version, raw)
            found[key] = self._base.get(key)
        for key in changed:
            found[key] = self._read(key, tag)
        return [(key, raw) for key, raw in sorted(found.items()) if raw is not None], last

    def _written(self, key: str) -> Written | None:
        """Return the last write of `key` that still counts."""
        stack = self._writes.get(key)
        if not stack:
            return None
        while stack and stack[-1][0] in self._dropped:
            stack.pop()
        return stack[-1] if stack else None

    def _note(self, key: str, version: int, raw: bytes | None) -> bytes | None:
        self._versions[key] = version
        if raw is not None:
            expires = open_state(raw)[1]
            # By the invocation's time, not the clock's: all reads of a run agree, and so does a
            # repeated one.
            if expires and expires <= self._invocation.now:
                raw = None
        self._base[key] = raw
        return raw

    def start_next(self, invocation: Invocation) -> None:
        """Start the next commit, whose changes are written as `invocation`; earlier ones are durable."""
        self._invocation = invocation
        for kept in (self._versions, self._base, self._writes, self._edges, self._scans):
            kept.clear()

    def tags(self) -> set[int]:
        """Return the tags of the changes."""
        return {written[0] for stack in self._writes.values() for written in stack}

    def entangled(self, kept: Callable[[int], bool]) -> bool:
        """Return whether a kept effect was computed from a dropped one."""
        return any(kept(reader) and not kept(writer) for reader, writer in self._edges)

    def writes(self, kept: Callable[[int], bool] | None) -> tuple[StateWrite, ...]:
        """Return the last kept write (None: all are kept) of every key, and cache them."""
        found: list[StateWrite] = []
        token = self._invocation.token
        for key, stack in self._writes.items():
            for tag, value, expires in reversed(stack):
                if kept is None or kept(tag):
                    found.append(StateWrite(key, value, expires, self._store))
                    # The token is the version that the commit will store; if it is refused, the
                    # next run is `fresh`.
                    self._cache.put((self._place, key), 0 if value is None else token, value)
                    break
        return tuple(found)

    def reads(self) -> tuple[StateRead, ...]:
        """Return the versions and ranges that the effects rely on."""
        versions = (
            StateRead(key, version, None, self._store) for key, version in self._versions.items()
        )
        return (*versions, *self._scans)
