"""A store as an author declares it: a name, the type of its values, what is there at first, for how long.

In: `App.store(...)`. Out: a `Store`, which a handler opens with `context.store(...)`. It holds nothing itself:
a value is kept when the run that wrote it is committed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from headrace.model.codec import encode_state, state_decoder
from headrace.model.durations import seconds_in
from headrace.model.errors import Invalid, Misuse
from headrace.model.function import StoreSpec
from headrace.model.policy import MAX_KEPT_S, MAX_NAME
from headrace.model.stores import OWN

V = TypeVar("V")

NO_DEFAULT: Final[Any] = object()
"""The default of a store that has none."""
MIN_TTL_S: Final = 0.000_001
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


class Store(Generic[V]):
    """Made by `App.store`, never by hand.

    Attributes:
        app: The name of the app that declares it; "" where it is the function's own.
        spec: Its name and settings.
        of: The type of its values.
        default: What a key has that nobody has written, encoded; None where it has nothing.
        is_typed: Whether its values are of a type, and not any.
        ttl: Seconds a value is kept; None means until it is replaced.
        decode: Decodes a value at rest.
    """

    __slots__ = ("app", "decode", "default", "is_typed", "of", "spec", "ttl")

    def __init__(
        self, spec: StoreSpec, of: Any = Any, *, default: bytes | None = None, app: str = ""
    ) -> None:
        self.app = app
        self.spec = spec
        self.of = of
        self.is_typed = of is not Any
        self.ttl = spec.ttl
        self.default = default
        self.decode: Callable[[bytes], Any] = state_decoder(of)

    @property
    def name(self) -> str:
        """The name, as its app declares it."""
        return self.spec.name

    def __repr__(self) -> str:
        return f"Store({self.name!r})"


OWN_STORE: Final[Store[Any]] = Store(StoreSpec(name=OWN))
"""What a function keeps for itself, of any type."""


def declared_store(
    app: str, name: object, of: Any, *, default: Any, ttl: Any, place: str
) -> Store[Any]:
    """A store of `app`, checked.

    Raises:
        Misuse: The name cannot be one, `ttl` is not a time, or `default` is not of the type.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > MAX_NAME:
        raise Misuse(
            f"{place}: `{name!r}` cannot be the name of a store; use 1 to {MAX_NAME} letters, digits, "
            "`_` and `-`, starting with a letter or digit"
        )
    where = f"{place}: store `{name}`"
    ttl_s = None
    if ttl is not None:
        ttl_s = seconds_in(ttl, f"{where}: `ttl=`", low=MIN_TTL_S, high=MAX_KEPT_S)
    spec = StoreSpec(name=name, type=_type_name(of), ttl=ttl_s)
    try:
        store: Store[Any] = Store(spec, of, app=app)
    except Exception as error:  # whatever msgspec makes of a type that it does not know
        raise Misuse(
            f"{where}: `{spec.type}` cannot be the type of a store: {error}; use a type that msgspec "
            "can decode"
        ) from error
    if default is not NO_DEFAULT:
        try:
            store.default = encode_state(default)
            store.decode(store.default)
        except Exception as error:
            raise Misuse(
                f"{where}: `default={default!r:.80}` is not a `{spec.type}`: {error}"
            ) from error
    return store


def check_value(store: Store[Any], key: str, raw: bytes) -> None:
    """Pass, where a value at rest is of the store's type.

    Raises:
        Invalid: It is not.
    """
    try:
        store.decode(raw)
    except Exception as error:
        raise Invalid(
            f"store `{store.name}`, key `{key}`: the value is not a `{store.spec.type}`: {error}"
        ) from error


def _type_name(of: Any) -> str:
    return of.__name__ if isinstance(of, type) else str(of).removeprefix("typing.")
