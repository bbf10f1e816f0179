"""A store in a run: a mapping that reads its own writes, which are committed with the run."""

from __future__ import annotations

from collections.abc import (
    Callable,
    ItemsView,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
    Sequence,
)
from types import GenericAlias
from typing import Any, Final, Protocol, TypeVar, overload

from headrace.model.codec import EXTENSIONS, encode_state, open_state, state_decoder
from headrace.model.durations import Duration, seconds_in
from headrace.model.errors import Invalid, Misuse
from headrace.model.policy import MAX_KEPT_S, MAX_KEY_BYTES, MAX_STATE_BYTES
from headrace.sdk.store import MIN_TTL_S, NO_DEFAULT, Store, check_value

T = TypeVar("T")
D = TypeVar("D")
V = TypeVar("V")

THE_STORES: Final[Any] = object()
"""A `ttl`, or a type, that nobody gave: that of the store holds."""

_TYPES: Final = (type, GenericAlias)
"""A default of these classes is a type, as it was given by position once."""

_decoders: dict[Any, Callable[[bytes], Any]] = {}


class StateAccess(Protocol):
    """Keeps an invocation's reads and writes of a store; values are encoded, expired ones are absent."""

    def read(self, key: str) -> bytes | None:
        """The value as this invocation sees it."""
        ...

    def read_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values, asked for together."""
        ...

    def write(self, key: str, value: bytes | None, expires: int) -> None:
        """Change a value; None deletes it."""
        ...

    def scan(self, prefix: str, begin: str) -> tuple[list[tuple[str, bytes]], str | None]:
        """A page of the keys behind `begin` that start with `prefix`, ascending, with their values.

        With them comes the key behind which the next page begins, or None after the last one. A page may be
        empty.
        """
        ...

    def change(self, key: str, change: Callable[[bytes | None], tuple[bytes, int]]) -> None:
        """Replace a value by what `change` makes of it, and when that expires; nothing in between."""
        ...

    @property
    def now(self) -> int:
        """Time at which the invocation was dispatched, in microseconds since the epoch."""
        ...


class State(MutableMapping[str, V]):
    """An open store: `context.state`, or `context.store(totals)`.

    Keys are text, an event's key among them; values are anything msgpack can encode, up to 4 MiB. A value
    that is read is a copy: change it, then write it back. Where the store has a default, `state[key]`,
    `get(key)` and `update` begin with it; `key in state` and `items` know only what was written.

    Raises:
        Misuse: A key cannot be one; that of an event without a key is None.
        Invalid: A value has no msgpack form, is too large, or is not of the store's type.
    """

    __slots__ = ("_ledger", "_store")

    def __init__(self, ledger: StateAccess, store: Store[V]) -> None:
        self._ledger = ledger
        self._store = store

    def __repr__(self) -> str:
        return f"<state of {self._store!r}>"

    def __getitem__(self, key: str | None) -> V:
        raw = self._ledger.read(_checked(key))
        if raw is None:
            raw = self._store.default
            if raw is None:
                raise KeyError(key)
        value: V = self._opened(key, raw, THE_STORES)
        return value

    def __setitem__(self, key: str | None, value: V) -> None:
        name = _checked(key)
        raw, expires = self._closed(name, value, THE_STORES)
        self._ledger.write(name, raw, expires)

    def __delitem__(self, key: str | None) -> None:
        if self._ledger.read(_checked(key)) is None:
            raise KeyError(key)
        self.delete(key)

    def __contains__(self, key: object) -> bool:
        return self._ledger.read(_checked(key)) is not None

    def __iter__(self) -> Iterator[str]:
        return (key for key, _ in self._pages(""))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @overload
    def get(self, key: str | None, default: None = None) -> V | None: ...
    @overload
    def get(self, key: str | None, default: V | D) -> V | D: ...
    @overload
    def get(self, key: str | None, default: None = None, *, type: type[T]) -> T | None: ...
    @overload
    def get(self, key: str | None, default: D, *, type: type[T]) -> T | D: ...

    def get(
        self, key: str | None, default: Any = NO_DEFAULT, *old: Any, type: Any = THE_STORES
    ) -> Any:
        """The value at `key`, or `default` where there is none (not given: the store's, else None).

        Args:
            key: The key.
            default: Returned as it is.
            *old: A type in second place, as it was given once: refused.
            type: What to decode the value as; else it is the store's type.

        Raises:
            Invalid: What is there is not of that type.
        """
        if old or isinstance(default, _TYPES):
            of, *rest = (default, *old)
            given = "".join(f", {_shown(each)}" for each in rest[:1])
            raise _types_by_keyword(f"get(key{given}, type={_shown(of)})")
        raw = self._ledger.read(_checked(key))
        if raw is not None:
            return self._opened(key, raw, type)
        if default is not NO_DEFAULT:
            return default
        return None if self._store.default is None else self._opened(key, self._store.default, type)

    @overload
    def get_many(self, keys: Iterable[str | None]) -> dict[str, V]: ...
    @overload
    def get_many(self, keys: Iterable[str | None], *, type: type[T]) -> dict[str, T]: ...

    def get_many(
        self, keys: Iterable[str | None], *old: Any, type: Any = THE_STORES
    ) -> dict[str, Any]:
        """The values of those of `keys` that were written; asked for in one go."""
        if old:
            raise _types_by_keyword(f"get_many(keys, type={_shown(old[0])})")
        asked = [_checked(key) for key in keys]
        found = self._ledger.read_many(asked)
        return {
            key: self._opened(key, raw, type)
            for key, raw in zip(asked, found, strict=True)
            if raw is not None
        }

    def put(self, key: str | None, value: V, ttl: Duration | None = THE_STORES) -> None:
        """Keep `value` at `key` for a time of its own; `state[key] = value` keeps it for the store's.

        Args:
            key: The key.
            value: The value.
            ttl: Such as `"30d"`; None keeps it until it is replaced.

        Raises:
            Misuse: `key` or `ttl` cannot be used.
        """
        name = _checked(key)
        raw, expires = self._closed(name, value, ttl)
        self._ledger.write(name, raw, expires)

    def delete(self, key: str | None) -> None:
        """Remove `key` unseen: unlike `del`, it does not look whether there is anything."""
        self._ledger.write(_checked(key), None, 0)

    # Pairs by keyword, as a `dict` takes them, would clash with the options.
    @overload  # type: ignore[override]  # pairs by keyword are left out: see above
    def update(
        self,
        key: str | None,
        change: Callable[[V], V],
        /,
        *,
        default: V = ...,
        ttl: Duration | None = ...,
    ) -> V: ...
    @overload
    def update(
        self,
        key: str | None,
        change: Callable[[T], T],
        /,
        *,
        default: T = ...,
        ttl: Duration | None = ...,
        type: type[T],
    ) -> T: ...
    @overload
    def update(self, other: Mapping[str, V] | Iterable[tuple[str, V]], /) -> None: ...

    def update(
        self,
        key: Any,
        change: Any = None,
        /,
        *old: Any,
        default: Any = NO_DEFAULT,
        ttl: Duration | None = THE_STORES,
        type: Any = THE_STORES,
    ) -> Any:
        """Replace the value at `key` by `change(value)`, and return the new one.

        With a mapping, or pairs, in place of a key and a function: write all of them.

        Args:
            key: The key.
            *old: A type in third place, as it was given once: refused.
            change: Takes the value, or the default where there is none; returns the new value. Without any
                default an untyped store gives it None.
            default: In place of the store's default.
            ttl: As for `put`.
            type: As for `get`.

        Raises:
            KeyError: Nothing is there, and neither `default=` nor the store's type says what to begin with.
        """
        if change is None:
            super().update(key)
            return None
        if old:
            of, *rest = old
            given = "".join(f", default={_shown(each)}" for each in rest[:1])
            raise _types_by_keyword(f"update(key, change, type={_shown(of)}{given})")
        value: Any = None

        def changed(raw: bytes | None) -> tuple[bytes, int]:
            nonlocal value
            if raw is not None:
                before = self._opened(key, raw, type)
            elif default is not NO_DEFAULT:
                before = default
            elif self._store.default is not None:
                before = self._opened(key, self._store.default, type)
            elif type is THE_STORES and not self._store.is_typed:
                before = None
            else:
                raise KeyError(key)
            value = change(before)
            return self._closed(name, value, ttl)

        name = _checked(key)
        self._ledger.change(name, changed)
        return value

    def setdefault(self, key: str | None, default: V = NO_DEFAULT) -> V:
        """The value at `key`; where there is none, `default` (or the store's) is written first."""
        if key not in self:
            self[key] = self[key] if default is NO_DEFAULT else default
        return self[key]

    @overload
    def pop(self, key: str | None) -> V: ...
    @overload
    def pop(self, key: str | None, default: V | D) -> V | D: ...

    def pop(self, key: str | None, default: Any = NO_DEFAULT) -> Any:
        """Remove `key` and return its value, or `default` where there is none.

        Raises:
            KeyError: There is none, and no `default` was given.
        """
        raw = self._ledger.read(_checked(key))
        if raw is not None:
            self.delete(key)
            return self._opened(key, raw, THE_STORES)
        if default is NO_DEFAULT:
            raise KeyError(key)
        return default

    def clear(self) -> None:
        """Remove every key."""
        for key in list(self):
            self.delete(key)

    @overload
    def items(self, prefix: str = "") -> ItemsView[str, V]: ...
    @overload
    def items(self, prefix: str = "", *, type: type[T]) -> ItemsView[str, T]: ...

    def items(self, prefix: str = "", *old: Any, type: Any = THE_STORES) -> ItemsView[str, Any]:
        """The keys that start with `prefix`, ascending, with their values; 1,000 are read at a time.

        What is written while you go on shows where it lies ahead.
        """
        if old:
            raise _types_by_keyword(f"items(prefix, type={_shown(old[0])})")
        return StateItems(self, prefix, type)

    def _pages(self, prefix: str, type: Any = THE_STORES) -> Iterator[tuple[str, Any]]:
        begin: str | None = ""
        while begin is not None:
            page, begin = self._ledger.scan(prefix, begin)
            for key, raw in page:
                yield key, self._opened(key, raw, type)

    def _closed(self, name: str, value: Any, ttl: Duration | None) -> tuple[bytes, int]:
        """A value at rest, and when it expires."""
        store = self._store
        expires = 0
        if ttl is not THE_STORES or store.ttl is not None:
            expires = self._expires(name, store.ttl if ttl is THE_STORES else ttl)
        raw = encode_state(value, expires)
        if len(raw) > MAX_STATE_BYTES:
            raise Invalid(
                f"state `{name}` would be {len(raw):,} bytes; the limit is {MAX_STATE_BYTES:,}: "
                "spread it over several keys"
            )
        if store.is_typed:
            check_value(store, name, open_state(raw)[0] if expires else raw)
        return raw, expires

    def _expires(self, name: str, ttl: Duration | None) -> int:
        """The time at which a value that is written now expires; 0 for never."""
        if ttl is None:
            return 0
        kept_s = seconds_in(ttl, f"state `{name}`: `ttl=`", low=MIN_TTL_S, high=MAX_KEPT_S)
        return self._ledger.now + int(kept_s * 1e6)

    def _opened(self, key: object, raw: bytes, of: Any) -> Any:
        decode = self._store.decode if of is THE_STORES else _decoder(of)
        try:
            return decode(open_state(raw)[0] if raw[0] in EXTENSIONS else raw)
        except Exception as error:
            of = self._store.of if of is THE_STORES else of
            raise Invalid(
                f"state `{key}` is not a `{getattr(of, '__name__', of)}`: {error}"
            ) from error


class StateItems(ItemsView[str, V]):
    """The keys of a store that start with a prefix, with their values."""

    __slots__ = ("_of", "_prefix", "_state")

    def __init__(self, state: State[Any], prefix: str, of: Any) -> None:
        super().__init__(state)
        self._state = state
        self._prefix = prefix
        self._of = of

    def __iter__(self) -> Iterator[tuple[str, V]]:
        return self._state._pages(self._prefix, self._of)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, item: object) -> bool:
        return any(item == each for each in self)


def _checked(key: object) -> str:
    # Four bytes a letter at most: short keys need not be measured.
    if (
        isinstance(key, str)
        and key
        and (len(key) * 4 <= MAX_KEY_BYTES or len(key.encode("utf-8", "replace")) <= MAX_KEY_BYTES)
    ):
        return key
    if key is None:
        raise Misuse(
            "None cannot be a state key: the event at hand has no key; publish it with one "
            "(`publish(stream, value, key=...)`), or use a text of your own"
        )
    raise Misuse(f"`{key!r:.80}` cannot be a state key; use text of 1 to {MAX_KEY_BYTES:,} bytes")


def _types_by_keyword(spelling: str) -> Misuse:
    return Misuse(f"a type of state is given by keyword: write `{spelling}`")


def _shown(given: object) -> str:
    return given.__name__ if isinstance(given, type) else f"{given!r:.40}"


def _decoder(of: Any) -> Callable[[bytes], Any]:
    try:
        decode = _decoders.get(of)
    except TypeError:  # an unhashable type
        return state_decoder(of)
    if decode is None:
        decode = state_decoder(of)
        if len(_decoders) < 1_024:
            _decoders[of] = decode
    return decode
