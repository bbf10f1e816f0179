"""Something that each instance opens once for itself: `db = app.resource(open_database)`.

In: a function that opens it. Out: a `Resource` whose `value` is what was opened, typed. It is opened
at its first use in an instance, after the fork, and closed when the instance ends in good order. One
that needs an event loop is opened by `await db`.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from typing import Any, Final, Generic

from headrace.model.errors import Misuse
from headrace.sdk.error_notes import note
from headrace.sdk.type_variables import T

_NOTHING: Final[Any] = object()


class Resource(Generic[T]):
    """One resource of an app. Made by `App.resource`; read it by `value`, or `await` it, where it is needed.

    Attributes:
        name: The full name, `shop.open_database`.
    """

    def __init__(self, app: str, opens: Callable[[], Any], place: str) -> None:
        label = getattr(opens, "__name__", "")
        if not callable(opens):
            raise Misuse(f"{place}: `app.resource` takes a function that opens it, not `{opens!r}`")
        inner = inspect.unwrap(opens)
        self.name = f"{app}.{label}"
        self._opens = opens
        self._awaits = inspect.iscoroutinefunction(inner) or inspect.isasyncgenfunction(inner)
        self._lock = threading.RLock()
        self._turn: Any = None
        self._opened: Any = _NOTHING
        self._instead: Any = _NOTHING
        self._held: AsyncExitStack | None = None

    def __repr__(self) -> str:
        return f"Resource({self.name!r})"

    @property
    def value(self) -> T:
        """Value that was opened; the first use in an instance opens it, and raises what that raises.

        Raises:
            Misuse: No instance runs here: the module is being imported, or a test calls a handler
                without a `World` or `override`. Or it needs an event loop, and nobody has awaited it.
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

    def __await__(self) -> Generator[Any, None, T]:
        """`await db`: as `value`, and opens what needs an event loop, for one task at a time."""
        return self._awaited().__await__()

    @contextmanager
    def override(self, value: T) -> Iterator[None]:
        """Let it have another value for a while, in a test; nothing is opened or closed for that."""
        before, self._instead = self._instead, value
        try:
            yield
        finally:
            self._instead = before

    def lend(self, held: AsyncExitStack | None) -> None:
        """An instance is made: what it opens is closed with `held`. None: it ends, and opens no more."""
        self._held = held
        self._turn = None
        self._opened = _NOTHING

    async def _awaited(self) -> T:
        if self._instead is _NOTHING and self._opened is _NOTHING:
            if self._turn is None:
                # Only apps that wait for a resource pay for this import.
                from asyncio import Lock

                self._turn = Lock()
            async with self._turn:
                if self._opened is _NOTHING:
                    await self._open_on_loop()
        return self.value

    def _open(self) -> None:
        held = self._where()
        if self._awaits:
            raise self._unawaited()
        with self._naming_itself():
            made = self._opens()
            if inspect.isgenerator(made):
                made = held.enter_context(_yielded(made, self.name))
            elif inspect.isawaitable(made) or _is_asynchronous(made):
                if inspect.iscoroutine(made):
                    made.close()
                raise self._unawaited()
            elif hasattr(made, "close"):
                held.push_async_callback(_closed, made.close)
            elif isinstance(made, AbstractContextManager):
                made = held.enter_context(made)
        self._opened = made

    async def _open_on_loop(self) -> None:
        held = self._where()
        with self._naming_itself():
            made = self._opens()
            if inspect.isasyncgen(made):
                made = await held.enter_async_context(_yielded_later(made, self.name))
            elif inspect.isgenerator(made):
                made = held.enter_context(_yielded(made, self.name))
            else:
                if inspect.isawaitable(made):
                    made = await made
                close = getattr(made, "aclose", None) or getattr(made, "close", None)
                if close is not None:
                    held.push_async_callback(_closed, close)
                elif isinstance(made, AbstractAsyncContextManager):
                    made = await held.enter_async_context(made)
                elif isinstance(made, AbstractContextManager):
                    made = held.enter_context(made)
        self._opened = made

    @contextmanager
    def _naming_itself(self) -> Iterator[None]:
        """Name the resource in what opening it raises."""
        try:
            yield
        except Exception as error:
            note(error, f"while `{self.name}` was opened")
            raise

    def _where(self) -> AsyncExitStack:
        if self._held is None:
            raise Misuse(
                f"the resource `{self.name}` cannot be opened here: no instance runs. While the module is "
                "imported nothing may be open; in a test use a `World` or `with resource.override(fake)`"
            )
        return self._held

    def _unawaited(self) -> Misuse:
        return Misuse(
            f"the resource `{self.name}` needs an event loop to be opened; `await` the resource itself in "
            "an `async def` handler or hook, which gives its value and opens it the first time"
        )


def _is_asynchronous(made: Any) -> bool:
    """Return whether it can only be entered with an event loop."""
    return isinstance(made, AbstractAsyncContextManager) and not (
        hasattr(made, "close") or isinstance(made, AbstractContextManager)
    )


async def _closed(close: Callable[[], Any]) -> None:
    ended = close()
    if inspect.isawaitable(ended):
        await ended


@contextmanager
def _yielded(opening: Iterator[Any], name: str) -> Iterator[Any]:
    """Value that a generator yields, until the block ends; then the rest of it runs."""
    for value in opening:
        yield value
        break
    else:
        raise _yielded_nothing(name)
    if next(opening, _NOTHING) is not _NOTHING:
        raise _yielded_twice(name)


@asynccontextmanager
async def _yielded_later(opening: AsyncIterator[Any], name: str) -> AsyncIterator[Any]:
    """As `_yielded`, of an asynchronous generator."""
    value = await anext(opening, _NOTHING)
    if value is _NOTHING:
        raise _yielded_nothing(name)
    yield value
    if await anext(opening, _NOTHING) is not _NOTHING:
        raise _yielded_twice(name)


def _yielded_nothing(name: str) -> Misuse:
    return Misuse(f"`{name}` yielded nothing; a generator yields the resource once")


def _yielded_twice(name: str) -> Misuse:
    return Misuse(f"`{name}` yielded twice; a generator yields the resource once")
