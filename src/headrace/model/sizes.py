"""Sizes as people write them: `"64MiB"`, `"10MB"`, `4096`. Pure; what comes out is bytes.

The only reader of sizes: arguments, settings and the command line all come here. A policy declares a
field as `Bytes`; what is given may be any `Size`, and what is read is an int.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, overload

from msgspec.structs import force_setattr

from headrace.model.errors import Misuse

Size = int | str
"""A size as it may be given: bytes, or a text such as `"64MiB"`."""

MAX_SIZE: Final = 1 << 60
"""An exbibyte: where nothing else bounds a size."""

if TYPE_CHECKING:

    class Bytes:
        """A field that takes a `Size` and holds bytes."""

        @overload
        def __get__(self, instance: None, owner: type) -> Bytes: ...
        @overload
        def __get__(self, instance: object, owner: type) -> int: ...
        def __get__(self, instance: object, owner: type) -> Bytes | int:
            """Bytes."""
            ...

        def __set__(self, instance: object, value: Size) -> None:
            """As it may be given."""
            ...

    class MaybeBytes:
        """A field that takes a `Size` or None, and holds bytes or None."""

        @overload
        def __get__(self, instance: None, owner: type) -> MaybeBytes: ...
        @overload
        def __get__(self, instance: object, owner: type) -> int | None: ...
        def __get__(self, instance: object, owner: type) -> MaybeBytes | int | None:
            """Bytes, or None."""
            ...

        def __set__(self, instance: object, value: Size | None) -> None:
            """As it may be given."""
            ...

else:
    Bytes = int | str
    MaybeBytes = int | str | None

_BINARY: Final = ("KiB", "MiB", "GiB", "TiB")
_UNITS: Final[dict[str, int]] = {
    "": 1,
    "B": 1,
    **{unit: 1 << 10 * power for power, unit in enumerate(_BINARY, 1)},
    **{unit: 1_000**power for power, unit in enumerate(("kB", "MB", "GB", "TB"), 1)},
    "KB": 1_000,
}
_TEXT: Final = re.compile(r"(\d{1,20}(?:\.\d{1,20})?)([A-Za-z]{0,3})")
_FIX: Final = 'write bytes, or a text such as "512KiB", "64MiB" or "10MB"'


def bytes_in(size: object, what: str, *, low: int, high: int) -> int:
    """The bytes of `size`, which must be from `low` to `high`; a bare number is bytes, as text too.

    Raises:
        Misuse: It is not a size, or out of range; `what` names it.
    """
    match size:
        case bool():
            raise Misuse(f"{what} is {size!r}; {_FIX}")
        case int():
            found = size
        case str():
            found = _read(size, what)
        case _:
            raise Misuse(f"{what} is {size!r:.80}; {_FIX}")
    if not low <= found <= high:
        # Python refuses to write out an int of thousands of digits.
        shown = f"{found:,} bytes" if abs(found) <= MAX_SIZE else "a larger number of bytes"
        raise Misuse(f"{what} is {shown}, which is out of range; use {low:,} to {high:,} bytes")
    return found


def _read(text: str, what: str) -> int:
    written = text.replace(" ", "")
    found = _TEXT.fullmatch(written) if written.isascii() else None
    if found is None or found[2] not in _UNITS:
        raise Misuse(f"{what} is {text[:80]!r}; {_FIX}")
    number, unit = found[1], _UNITS[found[2]]
    return round(float(number) * unit) if "." in number else int(number) * unit


def written_size(size: int) -> str:
    """The text of a size, as its reader takes it: `"4MiB"`; what is not whole in a unit is bytes."""
    power = 0
    while size and size % 1_024 == 0 and power < len(_BINARY):
        size, power = size // 1_024, power + 1
    return f"{size}{('B', *_BINARY)[power]}"


def keep_bytes(
    policy: object, name: str, *, low: int, high: int = MAX_SIZE, what: str | None = None
) -> None:
    """Turn what a field was given into bytes; None stays.

    Args:
        policy: The struct, which has just been made.
        name: The field.
        low: Bytes at least.
        high: Bytes at most.
        what: What an error calls it; else the field and the struct's name.

    Raises:
        Misuse: It is not a size, or out of range.
    """
    given = getattr(policy, name)
    if given is not None:
        where = f"`{name}=` of `{type(policy).__name__}`" if what is None else what
        force_setattr(policy, name, bytes_in(given, where, low=low, high=high))  # type: ignore[arg-type]  # any struct
