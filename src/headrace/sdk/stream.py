"""A stream as an author holds it: a name, a type and the settings, to listen to or publish to."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, Generic

from headrace.model.codec import Coder
from headrace.model.errors import Misuse
from headrace.model.function import StreamSpec
from headrace.model.policy import MAX_NAME
from headrace.model.triggers.debezium import Debezium
from headrace.sdk.type_variables import T

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Stream(Generic[T]):
    """Made by `App.stream` and `App.external`, never by hand.

    Attributes:
        spec: The settings; for another app's stream only what was said about it.
        coder: Opens and closes its values.
        app: The app that made this handle.
        external: Whether the stream belongs to another app.
        place: Where it was declared.
    """

    __slots__ = ("app", "coder", "decode", "external", "place", "spec")

    def __init__(
        self, spec: StreamSpec, coder: Coder, *, app: str, external: bool, place: str
    ) -> None:
        self.spec = spec
        self.coder = coder
        self.decode: Callable[[bytes], Any] = coder.decode
        self.app = app
        self.external = external
        self.place = place

    @property
    def name(self) -> str:
        """The stream's full name."""
        return self.spec.name

    def read(
        self,
        *,
        start: str | int | datetime | None = None,
        pattern: dict[str, Any] | None = None,
        changes: Debezium | None = None,
    ) -> StreamSource[T]:
        """The stream as one function reads it: `@app.function(orders.read(start="latest"))`.

        Args:
            start: Where a new consumer group begins: `"earliest"` (the default), `"latest"`, an
                offset, or an aware datetime.
            pattern: An EventBridge pattern; events that do not match count as done.
            changes: The format of the row changes that its records are, such as `Debezium()`.
        """
        return StreamSource(self, {"start": start, "pattern": pattern, "changes": changes})

    def __repr__(self) -> str:
        return f"Stream({self.spec.name!r})"


class StreamSource(Generic[T]):
    """A stream, and how one function reads it. Made by `Stream.read`.

    Attributes:
        stream: The stream.
        options: What was given to `read`, not checked yet: errors name the function.
    """

    __slots__ = ("options", "stream")

    def __init__(self, stream: Stream[T], options: dict[str, Any]) -> None:
        self.stream = stream
        self.options = options

    def __repr__(self) -> str:
        given = ", ".join(f"{k}={v!r}" for k, v in self.options.items() if v is not None)
        return f"{self.stream!r}.read({given})"


def check_name(name: object, what: str, place: str) -> str:
    """`name`, where it can be one.

    Raises:
        Misuse: It is empty, too long, or has other characters.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > MAX_NAME:
        raise Misuse(
            f"{place}: `{name!r}` cannot be the name of {what}; use 1 to {MAX_NAME} letters, "
            "digits, `.`, `_` and `-`, starting with a letter or digit"
        )
    return name
