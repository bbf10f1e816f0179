"""The app's keyed store as a handler sees it: read your writes, committed with the invocation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar, overload

from headrace.model.codec import EXTENSIONS, encode_state, open_state, state_decoder
from headrace.model.durations import Span, seconds_in
from headrace.model.errors import Invalid, Misuse
from headrace.model.policy import MAX_KEPT_S, MAX_KEY_BYTES, MAX_STATE_BYTES, RESERVED_STATE

T = TypeVar("T")
D = TypeVar("D")

_decoders: dict[Any, Callable[[bytes], Any]] = {}


class StateAccess(Protocol):
    """Keeps an invocation's reads and writes; values are encoded, expired ones are absent."""

    def read(self, key: str) -> bytes | None:
        """The value as this invocation sees it."""
        ...

    def read_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values, asked for together."""
        ...

    def write(self, key: str, value: bytes | None, expires: int) -> None:
        """Change a value; None deletes it."""
        ...

    def scan(self, prefix: str, limit: int) -> list[tuple[str, bytes]]:
        """The keys that start with `prefix`, ascending, with their values."""
        ...

    def change(self, key: str, change: Callable[[bytes | None], tuple[bytes, int]]) -> None:
        """Replace a value by what `change` makes of it, and when that expires; nothing in between."""
        ...

    @property
    def now(self) -> int:
        """Time at which the invocation was dispatched, in microseconds since the epoch."""
        ...


class State:
    """A keyed store private to the app. Values are anything msgpack can hold, up to 4 MiB."""

    __slots__ = ("_ledger",)

    def __init__(self, ledger: StateAccess) -> None:
        self._ledger = ledger

    @overload
    def get(self, key: str, type: type[T]) -> T | None: ...
    @overload
    def get(self, key: str, type: type[T], default: D) -> T | D: ...
    @overload
    def get(self, key: str, type: None = None, default: Any = None) -> Any: ...

    def get(self, key: str, type: Any = None, default: Any = None) -> Any:
        """The value at `key` as `type`, or `default` where there is none.

        Raises:
            Invalid: What is there is not of that type.
        """
        raw = self._ledger.read(_checked(key))
        return default if raw is None else _opened(key, raw, type)

    def get_many(self, keys: Sequence[str], type: Any = None) -> dict[str, Any]:
        """The values of those of `keys` that are there; asked for in one go."""
        found = self._ledger.read_many([_checked(key) for key in keys])
        return {
            key: _opened(key, raw, type)
            for key, raw in zip(keys, found, strict=True)
            if raw is not None
        }

    def put(self, key: str, value: Any, ttl: Span | None = None) -> None:
        """Keep `value` at `key`, for `ttl` (such as `"30d"`) or until it is replaced.

        Raises:
            Invalid: The value has no msgpack form, or is too large.
            Misuse: `key` or `ttl` cannot be used.
        """
        raw, expires = self._closed(key, value, ttl)
        self._ledger.write(_checked(key), raw, expires)

    def delete(self, key: str) -> None:
        """Remove `key`; removing what is not there is fine."""
        self._ledger.write(_checked(key), None, 0)

    def update(
        self,
        key: str,
        change: Callable[[Any], Any],
        type: Any = None,
        default: Any = None,
        ttl: Span | None = None,
    ) -> Any:
        """Replace the value at `key` (or `default`) by `change(value)`, and return the new one."""
        value: Any = None

        def changed(raw: bytes | None) -> tuple[bytes, int]:
            nonlocal value
            value = change(default if raw is None else _opened(key, raw, type))
            return self._closed(key, value, ttl)

        self._ledger.change(_checked(key), changed)
        return value

    def items(
        self,
        prefix: str = "",
        type: Any = None,
        limit: int = 1_000,
    ) -> Iterator[tuple[str, Any]]:
        """The keys that start with `prefix`, ascending, with their values.

        Raises:
            Misuse: There are more than `limit`, or no key can start so.
        """
        if prefix.startswith(RESERVED_STATE):
            raise Misuse(f"`{prefix!r:.80}` cannot be the beginning of a state key; use text")
        found = self._ledger.scan(prefix, limit + 1)
        if len(found) > limit:
            raise Misuse(
                f"more than {limit:,} state keys start with `{prefix}`; use a longer prefix, or "
                "say `limit=`"
            )
        for key, raw in found:
            yield key, _opened(key, raw, type)

    def _closed(self, key: str, value: Any, ttl: Span | None) -> tuple[bytes, int]:
        """A value at rest, and when it expires."""
        expires = 0
        if ttl is not None:
            kept_s = seconds_in(ttl, f"state `{key}`: `ttl=`", low=0.000_001, high=MAX_KEPT_S)
            expires = self._ledger.now + int(kept_s * 1e6)
        raw = encode_state(value, expires)
        if len(raw) > MAX_STATE_BYTES:
            raise Invalid(
                f"state `{key}` would be {len(raw):,} bytes; the limit is {MAX_STATE_BYTES:,}: "
                "spread it over several keys"
            )
        return raw, expires


class Reserved:
    """A ledger for what the platform itself keeps for an app, under keys that no author can name.

    Args:
        ledger: The invocation's.
    """

    __slots__ = ("_ledger",)

    def __init__(self, ledger: StateAccess) -> None:
        self._ledger = ledger

    def read(self, key: str) -> bytes | None:
        """The value as this invocation sees it."""
        return self._ledger.read(RESERVED_STATE + key)

    def read_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values, asked for together."""
        return self._ledger.read_many([RESERVED_STATE + key for key in keys])

    def write(self, key: str, value: bytes | None, expires: int) -> None:
        """Change a value; None deletes it."""
        self._ledger.write(RESERVED_STATE + key, value, expires)

    def scan(self, prefix: str, limit: int) -> list[tuple[str, bytes]]:
        """The keys that start with `prefix`, ascending, with their values."""
        found = self._ledger.scan(RESERVED_STATE + prefix, limit)
        return [(key.removeprefix(RESERVED_STATE), raw) for key, raw in found]

    def change(self, key: str, change: Callable[[bytes | None], tuple[bytes, int]]) -> None:
        """Replace a value by what `change` makes of it."""
        self._ledger.change(RESERVED_STATE + key, change)

    @property
    def now(self) -> int:
        """Time at which the invocation was dispatched, in microseconds since the epoch."""
        return self._ledger.now


def _checked(key: object) -> str:
    # Four bytes a letter at most: short keys need not be measured.
    if (
        isinstance(key, str)
        and key
        and key[0] != RESERVED_STATE
        and (len(key) * 4 <= MAX_KEY_BYTES or len(key.encode("utf-8", "replace")) <= MAX_KEY_BYTES)
    ):
        return key
    raise Misuse(
        f"`{key!r:.80}` cannot be a state key; use text of 1 to {MAX_KEY_BYTES:,} bytes that does not "
        "begin with a NUL"
    )


def _opened(key: str, raw: bytes, of: Any) -> Any:
    try:
        decode = _decoders.get(of)
    except TypeError:  # an unhashable type
        decode = state_decoder(of)
    if decode is None:
        decode = state_decoder(Any if of is None else of)
        if len(_decoders) < 1_024:
            _decoders[of] = decode
    try:
        return decode(open_state(raw)[0] if raw[0] in EXTENSIONS else raw)
    except Exception as error:
        raise Invalid(f"state `{key}` is not a `{getattr(of, '__name__', of)}`: {error}") from error
