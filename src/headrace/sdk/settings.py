"""A value that operators choose and authors name: `app.setting("RATE", float, default=1.0)`.

In: a declaration, and what an operator gave. Out: a `Setting` whose `value` is of the declared type.
A value of another type is refused where the setting is declared, with the place it was read from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import PurePath
from typing import Any, Final, Generic, TypeVar, get_origin

import msgspec

from headrace.model.durations import seconds_in, written
from headrace.model.errors import Misuse
from headrace.model.settings import SETTING_NAME, SettingSpec, SettingValue, how_to_set

T = TypeVar("T")

MAX_SPAN_S: Final = 315_360_000.0
NOT_GIVEN: Final[Any] = object()
"""The default of a setting that has none."""


class Setting(Generic[T]):
    """One setting of an app. Made by `App.setting`; read it by `value`, where it is needed.

    Attributes:
        name: The full name, `shop.RATE`.
        spec: What the host knows of it.
    """

    def __init__(
        self,
        app: str,
        name: object,
        type: Any,
        default: Any,
        given: Sequence[SettingValue],
        place: str,
    ) -> None:
        if not isinstance(name, str) or not SETTING_NAME.fullmatch(name):
            raise Misuse(
                f"{place}: `{name!r}` cannot be the name of a setting; use capital letters, digits and "
                '`_`, such as `"RATE"`'
            )
        self.name = f"{app}.{name}"
        self._app = app
        self._type = type
        self._value = default
        if default is not NOT_GIVEN:
            self._value = self.read(SettingValue(self.name, default, f"{place}: the default"))
        preset = self._value
        chosen = next((each for each in reversed(given) if each.matches(self.name)), None)
        if chosen is not None:
            self._value = self.read(chosen)
        self.spec = SettingSpec(
            name=name,
            type=getattr(type, "__name__", str(type)) if get_origin(type) is None else str(type),
            default=None if default is NOT_GIVEN else _shown(preset),
            where="" if chosen is None else chosen.where,
        )

    def __repr__(self) -> str:
        return f"Setting({self.name!r})"

    @property
    def value(self) -> T:
        """Its value: what an operator gave, else the default.

        Raises:
            Misuse: It has neither a value nor a default.
        """
        if not self.has_value:
            raise Misuse(
                f"the setting `{self.name}` has no value; {how_to_set(self._app, self.spec.name)}, "
                "or give it a `default=`"
            )
        found: T = self._value
        return found

    @property
    def has_value(self) -> bool:
        """Return whether there is one to read."""
        return self._value is not NOT_GIVEN

    @contextmanager
    def override(self, value: T) -> Iterator[None]:
        """Let it have another value for a while, in a test."""
        before, self._value = self._value, value
        try:
            yield
        finally:
            self._value = before

    def read(self, given: SettingValue) -> T:
        """Convert what was given into a value of its type.

        Raises:
            Misuse: It is not of the type; the message says where it was read.
        """
        value = given.value
        if given.from_text:
            value = _listed(self._type, value)
        try:
            if self._type is timedelta and isinstance(value, (str, int, float)):
                what = f"{given.where}: `{self.name}`"
                return timedelta(seconds=seconds_in(value, what, low=0, high=MAX_SPAN_S))  # type: ignore[return-value]  # it is the type
            found: T = msgspec.convert(
                value, self._type, strict=not given.from_text, dec_hook=_path_of
            )
        except msgspec.ValidationError as error:
            raise Misuse(
                f"{given.where}: `{value!r}` cannot be the value of the setting `{self.name}`: {error}"
            ) from error
        return found


def _shown(default: Any) -> str:
    """A default as authors write it."""
    return written(default) if isinstance(default, timedelta) else repr(default)


def _listed(wanted: Any, text: Any) -> Any:
    """A text as a list, where the type is one: its parts are separated by commas."""
    if get_origin(wanted) in (list, tuple, set, frozenset) and isinstance(text, str):
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _path_of(wanted: Any, value: Any) -> Any:
    if isinstance(wanted, type) and issubclass(wanted, PurePath) and isinstance(value, str):
        return wanted(value)
    raise msgspec.ValidationError(
        f"Expected `{getattr(wanted, '__name__', wanted)}`, got `{type(value).__name__}`"
    )
