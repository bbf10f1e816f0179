"""Options as rows of a table: each a field of a description, with its type, default, range and text. Pure.

In: a struct whose fields are annotated with an `Option`. Out: an `OptionRow` for each. Checks, what
operators may override, and the reference page come from these rows and from nothing else.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from datetime import timedelta
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from headrace.model.durations import seconds_in, written
from headrace.model.errors import Misuse
from headrace.model.sizes import MAX_SIZE, Size, bytes_in, written_size


class Option(msgspec.Struct, frozen=True):
    """Annotation of a field that authors or operators set.

    Attributes:
        text: Its line on the reference page, in Markdown.
        low: The least number, or seconds.
        high: The highest number, or seconds; None means without bound.
        unit: What a number counts, where the name does not say it.
        fixed: Operators cannot override it in `headrace.toml`: it belongs to the author's code.
        default: What the reference page shows instead of the field's default.
    """

    text: str
    low: float = 0
    high: float | None = None
    unit: str = ""
    fixed: bool = False
    default: str = ""


class OptionRow(msgspec.Struct, frozen=True):
    """One option.

    Attributes:
        name: The field's name, which is the option's.
        kind: Its type, without None. A `float` is a duration, kept in seconds; an `int` whose unit
            is `bytes` is a size.
        optional: Whether None is one of its values.
        default: The field's default; `msgspec.NODEFAULT` without one.
        about: What its annotation says.
    """

    name: str
    kind: Any
    optional: bool
    default: Any
    about: Option

    @property
    def turns_off(self) -> bool:
        """Return whether None turns off what is on by default."""
        return self.optional and self.default is not None

    @property
    def choices(self) -> tuple[str, ...]:
        """The words it may be, or () where it is anything else."""
        return get_args(self.kind) if get_origin(self.kind) is Literal else ()

    @property
    def policies(self) -> tuple[type[msgspec.Struct], ...]:
        """The policies it may be, or () where it is anything else."""
        parts = get_args(self.kind) or (self.kind,)
        return tuple(
            part for part in parts if isinstance(part, type) and issubclass(part, msgspec.Struct)
        )

    @property
    def span(self) -> tuple[float, float] | None:
        """The least and highest seconds, or None where it is not a duration."""
        if self.kind is not float:
            return None
        return (self.about.low, float("inf") if self.about.high is None else self.about.high)

    @property
    def is_size(self) -> bool:
        """Return whether it is a number of bytes."""
        return self.kind is int and self.about.unit == "bytes"

    def number(self, value: object, what: str) -> float | int | None:
        """A duration as seconds, or a size as bytes; None where it is neither of the two.

        Raises:
            Misuse: The value is not one, or out of range; `what` names it.
        """
        if self.span is not None:
            low, high = self.span
            return seconds_in(value, what, low=low, high=high)
        if self.is_size:
            most = MAX_SIZE if self.about.high is None else int(self.about.high)
            return bytes_in(value, what, low=int(self.about.low), high=most)
        return None

    @property
    def written_default(self) -> str:
        """Its default as authors write it."""
        shown = written_default(Size if self.is_size else self.kind, self.default)
        return self.about.default or f"`{shown}`"

    @property
    def range(self) -> str:
        """Its range in words, such as `1 to 10,000`."""
        low, high = self.about.low, self.about.high
        unit = f" {self.about.unit}" if self.about.unit else ""
        return f"{low:,g} or more{unit}" if high is None else f"{low:,g} to {high:,.15g}{unit}"

    def in_range(self, number: float) -> bool:
        """Return whether a number, or seconds, is in the range."""
        return number >= self.about.low and (self.about.high is None or number <= self.about.high)


@functools.cache
def option_rows(of: type[msgspec.Struct]) -> Mapping[str, OptionRow]:
    """The options among a description's fields, in their order."""
    hints = get_type_hints(of, include_extras=True)
    rows = {}
    for field in msgspec.structs.fields(of):
        hint = hints[field.name]
        if get_origin(hint) is not Annotated:
            continue
        kind, *notes = get_args(hint)
        for about in notes:
            if isinstance(about, Option):
                bare, optional = _without_none(kind)
                rows[field.name] = OptionRow(field.name, bare, optional, field.default, about)
    return rows


def written_default(kind: Any, value: Any) -> str:
    """A default as authors write it: `"30s"`, `"4MiB"`, `Retry()`, `100`.

    Args:
        kind: The type of the field. A `float` is a duration, an int that may be a text a size.
        value: The default.
    """
    kinds = get_args(kind) or (kind,)
    if value is None or isinstance(value, bool):
        return repr(value)
    if value == 0:
        return "0"
    if float in kinds:
        return f'"{written(timedelta(seconds=value))}"'
    if int in kinds and str in kinds:
        return f'"{written_size(value)}"'
    if isinstance(value, msgspec.Struct):
        return f"{type(value).__name__}()"
    return f'"{value}"' if isinstance(value, str) else repr(value)


def check_ranges(spec: msgspec.Struct, where: str) -> None:
    """Pass, where every number and duration of a description is in its option's range.

    Raises:
        Misuse: One is not.
    """
    for name, row in option_rows(type(spec)).items():
        value = getattr(spec, name)
        if value is None:
            continue
        if (
            row.number(value, f"{where}: `{name}`") is None
            and row.kind is int
            and not row.in_range(value)
        ):
            raise Misuse(f"{where}: `{name}={value!r}` is out of range; use {row.range}")


def _without_none(kind: Any) -> tuple[Any, bool]:
    if not isinstance(kind, UnionType) and get_origin(kind) is not Union:
        return kind, False
    parts = get_args(kind)
    kept = tuple(part for part in parts if part is not type(None))
    return Union[kept], len(kept) < len(parts)  # noqa: UP007  # of a tuple that is known only now
