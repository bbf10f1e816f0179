"""Fields of triggers that may be given a thing and hold its name: streams, folders.

A trigger declares a field as `StreamName` or `FolderPath`; what is given may be the object an author has
at hand, and what is read is a text, so that the trigger stays a value.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any, Protocol, overload, runtime_checkable

import msgspec
from msgspec.structs import force_setattr


@runtime_checkable
class Named(Protocol):
    """A stream as `App.stream`, `App.queue` and `App.external` hand it out."""

    @property
    def name(self) -> str:
        """Its full name."""
        ...

    @property
    def spec(self) -> Any:
        """Its settings."""
        ...


if TYPE_CHECKING:

    class StreamName:
        """A field that takes a stream or its name, and holds the name."""

        @overload
        def __get__(self, instance: None, owner: type) -> StreamName: ...
        @overload
        def __get__(self, instance: object, owner: type) -> str: ...
        def __get__(self, instance: object, owner: type) -> StreamName | str:
            """The name."""
            ...

        def __set__(self, instance: object, value: str | Named) -> None:
            """As it may be given."""
            ...

    class FolderPath:
        """A field that takes a path or a text, and holds the text."""

        @overload
        def __get__(self, instance: None, owner: type) -> FolderPath: ...
        @overload
        def __get__(self, instance: object, owner: type) -> str: ...
        def __get__(self, instance: object, owner: type) -> FolderPath | str:
            """The path as text."""
            ...

        def __set__(self, instance: object, value: str | os.PathLike[str]) -> None:
            """As it may be given."""
            ...

else:
    # Not bare texts, so that `PolicyStruct` lets more than a text pass.
    StreamName = Annotated[str, Named]
    FolderPath = Annotated[str, os.PathLike]


def keep_name(trigger: msgspec.Struct, *fields: str) -> None:
    """Keep the names of the streams that the fields were given, in the place of the streams."""
    for field in fields:
        given = getattr(trigger, field)
        if not isinstance(given, str) and isinstance(given, Named):
            force_setattr(trigger, field, given.name)


def keep_path(trigger: msgspec.Struct, field: str) -> None:
    """Keep the path that the field was given as a text."""
    given = getattr(trigger, field)
    if isinstance(given, os.PathLike):
        force_setattr(trigger, field, os.fspath(given))
