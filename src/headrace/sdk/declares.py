"""Types of what `App.function` returns: a decorator that knows which events the handler is given.

For type checkers alone: at run time the decorator is a plain function that hands the handler back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar, overload

from headrace.sdk.batch import Batch
from headrace.sdk.event import Event

T_in = TypeVar("T_in")
More = ParamSpec("More")
Result = TypeVar("Result")


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
