"""Something that each instance opens once for itself: `db = app.resource(open_database)`.

In: a function that opens it. Out: a `Resource` whose `value` is what was opened, typed. It is opened
at its first use in an instance, after the fork, and closed when the instance ends in good order.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Final, Generic, TypeVar

from headrace.model.errors import Misuse

T = TypeVar("T")

_NOTHING: Final[Any] = object()


class Resource(Generic[T]):
    """One resource of an app. Made by `App.resource`; read it by `value`, where it is needed.

    Attributes:
        name: The full name, `shop.open_database`.
    """

    def __init__(self, app: str, opens: Callable[[], Any], place: str) -> None:
        label = getattr(opens, "__name__", "")
        inner = inspect.unwrap(opens)
        if inspect.iscoroutinefunction(inner) or inspect.isasyncgenfunction(inner):
            raise Misuse(
                f"{place}: `{label}` is asynchronous, and a resource is opened by a plain function or "
                "generator; open what needs an event loop in the first `async def` handler that uses it"
            )
        if not callable(opens):
            raise Misuse(f"{place}: `app.resource` takes a function that opens it, not `{opens!r}`")
        self.name = f"{app}.{label}"
        self._opens = opens
        self._lock = threading.RLock()
        self._opened: Any = _NOTHING
        self._instead: Any = _NOTHING
        self._held: ExitStack | None = None

    def __repr__(self) -> str:
        return f"Resource({self.name!r})"

    @property
    def value(self) -> T:
        """Value that was opened; the first use in an instance opens it, and raises what that raises.

        Raises:
            Misuse: No instance runs here: the module is being imported, or a test calls a handler
                without a `World` or `override`.
        """
        found: T
        if self._instead is not _NOTHING:
            found = self._instead
            return found
        if self._opened is _NOTHING:
            with self._lock:
                if self._opened is _NOTHING:
                    self._open()
        found = self._opened
        return found

    @contextmanager
    def override(self, value: T) -> Iterator[None]:
        """Let it have another value for a while, in a test; nothing is opened or closed for that."""
        before, self._instead = self._instead, value
        try:
            yield
        finally:
            self._instead = before

    def lend(self, held: ExitStack | None) -> None:
        """An instance is made: what it opens is closed with `held`. None: it ends, and opens no more."""
        self._held = held
        self._opened = _NOTHING

    def _open(self) -> None:
        if self._held is None:
            raise Misuse(
                f"the resource `{self.name}` cannot be opened here: no instance runs. While the module is "
                "imported nothing may be open; in a test use a `World` or `with resource.override(fake)`"
            )
        made = self._opens()
        if inspect.isgenerator(made):
            made = _yielded(made, self.name)
        if hasattr(made, "close"):
            self._held.callback(made.close)
        elif isinstance(made, AbstractContextManager):
            made = self._held.enter_context(made)
        self._opened = made


@contextmanager
def _yielded(opening: Iterator[Any], name: str) -> Iterator[Any]:
    """Value that a generator yields, until the block ends; then the rest of it runs."""
    for value in opening:
        yield value
        break
    else:
        raise Misuse(f"`{name}` yielded nothing; a generator yields the resource once")
    if next(opening, _NOTHING) is not _NOTHING:
        raise Misuse(f"`{name}` yielded twice; a generator yields the resource once")
