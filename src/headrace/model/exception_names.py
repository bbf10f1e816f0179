"""Names of exceptions: as a policy gives them, and as a failure carries them. Pure.

A policy names exceptions by class, by dotted name or, if they are built in, by bare name. A failure
carries the names of its exception's class and of all that this class is derived from, so that the host,
which never imports an author's code, knows a subclass.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Final, overload

from msgspec.structs import force_setattr

from headrace.model.errors import Misuse

ExceptionName = type[BaseException] | str
"""An exception as a policy may name it: a class, `"requests.Timeout"`, `"ConnectionError"`."""

if TYPE_CHECKING:

    class ExceptionNames:
        """A field that takes exceptions, one or several, and holds their names."""

        @overload
        def __get__(self, instance: None, owner: type) -> ExceptionNames: ...
        @overload
        def __get__(self, instance: object, owner: type) -> tuple[str, ...]: ...
        def __get__(self, instance: object, owner: type) -> ExceptionNames | tuple[str, ...]:
            """Names."""
            ...

        def __set__(
            self, instance: object, value: type[BaseException] | Sequence[ExceptionName]
        ) -> None:
            """As they may be given."""
            ...

else:
    # Not bare texts, so that `PolicyStruct` lets classes pass.
    ExceptionNames = Annotated[tuple[str, ...], ExceptionName]

NAMED_BY_PLATFORM: Final = frozenset(
    {
        "Conflict",
        "Crashed",
        "Failed",
        "Invalid",
        "Misuse",
        "NoProgress",
        "OutOfMemory",
        "Permanent",
        "ProtocolError",
        "Refused",
        "TimedOut",
        "TooLarge",
        "Unavailable",
        "Undecodable",
        "Unknown",
    }
)
"""Kinds of failures that the platform names itself; some are no exception of the author's process."""

MAX_LEAVES, MAX_CLASSES, MAX_LETTERS = 16, 32, 200
"""What a failure carries at most: exceptions of a group, classes of each, letters of a name."""


def keep_exception_names(policy: object, field: str) -> None:
    """Turn what a field was given into names.

    Raises:
        Misuse: Something in it names no exception.
    """
    given: object = getattr(policy, field)
    what = f"`{type(policy).__name__}({field}=...)`"
    if isinstance(given, str):
        raise Misuse(
            f"{what} is the text {given!r}; write the class, or a tuple: `{field}=({given!r},)`"
        )
    several = given if isinstance(given, Iterable) and not isinstance(given, type) else (given,)
    names = tuple(_name_of(each, what) for each in several)
    force_setattr(policy, field, names)  # type: ignore[arg-type]  # any struct


def _name_of(given: object, what: str) -> str:
    if isinstance(given, type) and issubclass(given, BaseException):
        return qualified(given)
    if not isinstance(given, str) or not all(part.isidentifier() for part in given.split(".")):
        raise Misuse(
            f"{what}: {given!r} is not an exception; write a class such as `ConnectionError`, or "
            'its dotted name such as "requests.Timeout"'
        )
    if "." in given or given in NAMED_BY_PLATFORM or _is_built_in(given):
        return given
    known = [name for name in vars(builtins) if _is_built_in(name)]
    near = get_close_matches(given, [*known, *NAMED_BY_PLATFORM], n=1)
    hint = f" (did you mean `{near[0]}`?)" if near else ""
    raise Misuse(
        f"{what}: no built-in exception is called `{given}`{hint}; write the class itself, or its "
        f'dotted name such as "shop.{given}"'
    )


def _is_built_in(name: str) -> bool:
    found = vars(builtins).get(name)
    return isinstance(found, type) and issubclass(found, BaseException)


def qualified(of: type) -> str:
    """Return the dotted name of a class; a bare name for a built-in one."""
    name = of.__qualname__ if of.__module__ == "builtins" else f"{of.__module__}.{of.__qualname__}"
    return name[:MAX_LETTERS]


def classes_of(error: BaseException) -> tuple[tuple[str, ...], ...]:
    """Return the names of the error's class and of its bases; for a group, those of each member."""
    leaves: list[BaseException] = [error]
    found: list[tuple[str, ...]] = []
    while leaves and len(found) < MAX_LEAVES:
        each = leaves.pop(0)
        if isinstance(each, BaseExceptionGroup):
            leaves += each.exceptions[:MAX_LEAVES]
        else:
            found.append(tuple(qualified(base) for base in type(each).__mro__[:MAX_CLASSES]))
    return tuple(found)


def means(names: Sequence[str], classes: Sequence[str]) -> bool:
    """Return whether one of a policy's names is one of these classes.

    A dotted name is also that of a class of the same package with the same last part:
    `requests.Timeout` is defined in `requests.exceptions`.
    """
    return any(
        name == each or ("." in name and "." in each and _ends(name) == _ends(each))
        for name in names
        for each in classes
    )


def _ends(name: str) -> tuple[str, str]:
    return name.partition(".")[0], name.rpartition(".")[2]
