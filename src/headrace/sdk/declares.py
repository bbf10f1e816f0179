"""Types of what `App.function` returns: a decorator that knows what the handler is given and may return.

For type checkers alone: at run time the decorator is a plain function that hands the handler back. Where an
`output` is given, a checker holds what the handler returns against it, and sees calls of the handler return
`Any`: no type variable can be bounded by another, so it is either the check or the exact type.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Concatenate, ParamSpec, Protocol, TypeAlias, TypeVar, overload

from headrace.sdk.batch import Batch
from headrace.sdk.event import Event
from headrace.sdk.request import Reply
from headrace.sdk.results import Failures, Output

T_in = TypeVar("T_in")
T_out = TypeVar("T_out", contravariant=True)
More = ParamSpec("More")
Result = TypeVar("Result")
Held = TypeVar("Held")
Answer: TypeAlias = (
    T_out | Output[T_out] | list[T_out] | list[Output[T_out]] | Failures | Reply | None
)
"""What a handler may return whose output holds values of a type."""
Answers: TypeAlias = (
    Answer[T_out]
    | Awaitable[Answer[T_out]]
    | Iterator[T_out | Output[T_out] | Failures]
    | AsyncIterator[T_out | Output[T_out] | Failures]
)
"""The same, and what an asynchronous handler or one that yields returns when it is called."""


class DeclaresReader(Protocol[T_in]):
    """Takes a handler of events of the stream's type, single or in batches, and hands it back."""

    @overload
    def __call__(
        self, handler: Callable[Concatenate[Event[T_in], More], Result], /
    ) -> Callable[Concatenate[Event[T_in], More], Result]: ...

    @overload
    def __call__(
        self, handler: Callable[Concatenate[Batch[T_in], More], Result], /
    ) -> Callable[Concatenate[Batch[T_in], More], Result]: ...


class DeclaresWriter(Protocol[T_in, T_out]):
    """As `DeclaresReader`, of a handler whose results go to a stream."""

    @overload
    def __call__(
        self, handler: Callable[Concatenate[Event[T_in], More], Answers[T_out]], /
    ) -> Callable[Concatenate[Event[T_in], More], Any]: ...

    @overload
    def __call__(
        self, handler: Callable[Concatenate[Batch[T_in], More], Answers[T_out]], /
    ) -> Callable[Concatenate[Batch[T_in], More], Any]: ...


class DeclaresAnswering(Protocol[T_out]):
    """Takes a handler that a trigger sets off and whose results go to a stream, and hands it back."""

    def __call__(self, handler: Callable[More, Answers[T_out]], /) -> Callable[More, Any]:
        """Declare the handler."""
        ...


class DeclaresFold(Protocol[T_in]):
    """Takes the function that folds events of the stream's type into what a window holds, and hands it back."""

    def __call__(
        self, fold: Callable[[Held | None, Event[T_in]], Held], /
    ) -> Callable[[Held | None, Event[T_in]], Held]:
        """Declare the window."""
        ...
