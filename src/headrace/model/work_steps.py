"""Long work in steps: on an event loop, other tasks run between two of them."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeAlias, TypeVar

T = TypeVar("T")

Steps: TypeAlias = Generator[None, None, T]
"""Yields after each step, and returns what all of them come to."""


def at_once(steps: Steps[T]) -> T:
    """Run the steps and return their result, where no other task waits."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: T = end.value
            return found
