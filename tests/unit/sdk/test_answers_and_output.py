"""Return annotations of handlers against what their outputs hold."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from enum import Enum
from typing import Any, TypedDict, cast

import msgspec
import pytest

from headrace import App, Batch, Event, Failures, Http, Output, Reply
from headrace.errors import Misuse


class Total(msgspec.Struct, tag=True):
    total: int


class Larger(Total, tag=True):
    more: int = 0


class Other(msgspec.Struct, tag=True):
    other: int


class Written(TypedDict):
    total: int


class Colour(Enum):
    RED = "red"


def declared(held: Any, answer: Any, *, batch: bool = False) -> None:
    app = App("shop")
    orders, totals = app.stream("orders"), app.stream("totals", value=held)

    def price(event: Any) -> Any: ...

    price.__annotations__ = {"event": Batch if batch else Event, "return": answer}
    app.function(orders, output=totals)(cast("Callable[[Event[Any]], Any]", price))


@pytest.mark.parametrize(
    ("held", "answer"),
    [
        (Total, Total),
        (Total, Larger | None),
        (Total, Output[Total] | Failures | None),
        (Total, list[Total]),
        (Total, list[Output[Total]]),
        (Total, Iterator[Total | Failures]),
        (Total, AsyncIterator[Output[Larger]]),
        (Total, dict[str, Any]),
        (Total, Written),
        (Total, Any),
        (Total, None),
        (Total, Output),
        (Total | Other, Other),
        (list[int], list[int]),
        (float, int),
        (Any, int),
        (dict[str, Any], dict[str, int]),
    ],
)
def test_what_the_output_may_hold_is_taken(held: Any, answer: Any) -> None:
    declared(held, answer)
    declared(held, answer, batch=True)


@pytest.mark.parametrize(
    ("held", "answer", "said"),
    [
        (Total, Other, "return `Other`, but its output `totals`.*holds `Total`"),
        (Total, Total | str, "return `str`"),
        (Total, Output[Other], "return `Other`"),
        (Total, list[Other], "return `Other`"),
        (Total, AsyncIterator[int], "return `int`"),
        (Larger, Total, "return `Total`.*holds `Larger`"),
        (int, float, "return `float`"),
        (str, Colour, "return `Colour`"),
        (Total | Other, int, "return `int`"),
    ],
)
def test_what_it_never_holds_is_refused(held: Any, answer: Any, said: str) -> None:
    with pytest.raises(Misuse, match=rf"{said}.*; make them the same"):
        declared(held, answer)


def test_a_reply_is_the_callers() -> None:
    app = App("shop")
    totals = app.stream("totals", value=Total)

    @app.function(Http("POST", "/orders"), output=totals)
    def price(event: Event[Any]) -> Total | Reply:
        return Total(1)
