"""When a source counts as well, failing or halted."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from headrace.delivery.sourcebook import MAX_ERROR, WELL_AFTER_S, SourceBook
from headrace.model.errors import Misuse, Unavailable
from headrace.world.clock import Clock

T = TypeVar("T")


class Hand(Clock):
    """A clock that is moved by hand."""

    seconds = 100.0

    def now(self) -> int:
        return round(self.seconds * 1e6)

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError

    async def timeout(self, awaitable: Awaitable[T], seconds: float | None) -> T:
        raise NotImplementedError


def test_a_source_is_well_until_it_fails_and_again_when_it_has_run_for_a_while() -> None:
    clock = Hand()
    book = SourceBook(clock)
    assert book.trouble("s") is None
    book.begun("s")
    assert book.trouble("s") is None
    book.failed("s", Unavailable("the broker is away"))
    book.begun("s")
    trouble = book.trouble("s")
    assert trouble is not None
    assert (trouble.error, trouble.failures, trouble.halted) == ("the broker is away", 1, False)
    clock.seconds += WELL_AFTER_S + 1
    assert book.trouble("s") is None


def test_failures_in_a_row_are_counted_from_the_first() -> None:
    clock = Hand()
    book = SourceBook(clock)
    for _ in range(3):
        book.begun("s")
        clock.seconds += 5
        book.failed("s", ValueError("no"))
    trouble = book.trouble("s")
    assert trouble is not None
    assert (trouble.error, trouble.failures, trouble.since) == ("ValueError: no", 3, 105_000_000)
    book.begun("s")
    clock.seconds += WELL_AFTER_S + 1
    book.failed("s", ValueError("again"))
    trouble = book.trouble("s")
    assert trouble is not None
    assert (trouble.failures, trouble.since) == (1, round(clock.seconds * 1e6))


def test_a_halted_source_does_not_get_well_by_waiting() -> None:
    clock = Hand()
    book = SourceBook(clock)
    book.begun("s")
    book.failed("s", Misuse("the slot is gone"), halted=True)
    clock.seconds += 10_000
    trouble = book.trouble("s")
    assert trouble is not None
    assert trouble.halted
    book.forget("s")
    assert book.trouble("s") is None


def test_a_long_error_is_cut() -> None:
    book = SourceBook(Hand())
    book.failed("s", ValueError("x" * 10_000))
    trouble = book.trouble("s")
    assert trouble is not None
    assert len(trouble.error) == MAX_ERROR + 1
