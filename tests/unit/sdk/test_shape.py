"""The form of a handler, read from its annotations and parameters."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import msgspec
import pytest

from headrace import App, Consumer, Cron, Http
from headrace.model.errors import Misuse
from headrace.sdk.batch import Batch
from headrace.sdk.context import Context
from headrace.sdk.event import Event
from headrace.sdk.handler_signature import HandlerSignature, shape_of
from headrace.sdk.request import Request
from headrace.testing import World


class Order(msgspec.Struct):
    id: int


def batch_and_context(events: Batch[Order], context: Context) -> None:
    """Price orders.

    More about it.
    """


def batch_only(anything: Batch[Order]) -> None: ...
def batch_by_name(events, context): ...  # type: ignore[no-untyped-def]
def event_by_name(event): ...  # type: ignore[no-untyped-def]
def event_and_context(order: Event[Order], context: Context) -> None: ...
def listed(anything: list[Event[Order]]) -> None: ...
def sequence(anything: Sequence[Event[Any]], ctx: Context) -> None: ...
async def waiting(event: Event[Order]) -> None: ...


def yielding(event: Event[Order]) -> Iterator[int]:
    yield 1


async def yielding_later(events: Batch[Order]) -> AsyncIterator[int]:
    yield 1


def optional(event: Event[Order], context: Any = None, more: int = 3) -> None: ...


@pytest.mark.parametrize(
    ("handler", "batch", "context", "awaits", "generates", "value"),
    [
        (batch_and_context, True, True, False, False, Order),
        (batch_only, True, False, False, False, Order),
        (batch_by_name, True, True, False, False, Any),
        (event_by_name, False, False, False, False, Any),
        (event_and_context, False, True, False, False, Order),
        (listed, True, False, False, False, Order),
        (sequence, True, True, False, False, Any),
        (waiting, False, False, True, False, Order),
        (yielding, False, False, False, True, Order),
        (yielding_later, True, False, True, True, Order),
        (optional, False, True, False, False, Order),
    ],
)
def test_each_form_is_distinguished(
    handler: Callable[..., Any],
    batch: bool,
    context: bool,
    awaits: bool,
    generates: bool,
    value: Any,
) -> None:
    shape = shape_of(handler, "shop.f")
    assert (
        shape.batch,
        "context" in shape.parameters,
        shape.awaits,
        shape.generates,
        shape.value,
    ) == (
        batch,
        context,
        awaits,
        generates,
        value,
    )


def test_the_place_and_the_first_line_of_the_docstring_are_kept() -> None:
    shape = shape_of(batch_and_context, "shop.f")
    assert shape.summary == "Price orders."
    assert shape.place.startswith(__file__ + ":")


def test_a_decorator_that_wraps_is_looked_through() -> None:
    def logged(handler: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(handler)
        def inner(*arguments: Any) -> Any:
            return handler(*arguments)

        return inner

    assert shape_of(logged(batch_and_context), "shop.f").parameters == ("event", "context")


def test_a_method_is_read_without_its_self() -> None:
    class Shop:
        def price(self, event: Event[Order]) -> None: ...

    shape = shape_of(Shop().price, "shop.price")
    assert not shape.batch
    assert shape.parameters == ("event",)


def unclear(thing): ...  # type: ignore[no-untyped-def]
def bare_value(order: Order) -> None: ...
def asked_in_a_batch(events: Batch[Order], request: Request) -> None: ...
def twice(event: Event[Order], context: Context, other: Context) -> None: ...
def three(events: Batch[Order], context: Context, more: int) -> None: ...
def keyword(event: Event[Order], *, loud: bool) -> None: ...
def missing(event: Event[Gone]) -> None: ...  # type: ignore[name-defined]  # noqa: F821  # that is the test
def gone_result(event: Event[Order]) -> Gone: ...  # type: ignore[name-defined]  # noqa: F821  # that is the test


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (unclear, r"not clear whether `thing` is one event or a batch; write `thing: Event`"),
        (bare_value, r"write `order: Event\[Order\]`.*`order: Batch\[Order\]`"),
        (asked_in_a_batch, r"a batch has many requests"),
        (twice, r"takes \(event, context, other\); a handler takes an `event: Event\[T\]`"),
        (three, r"nothing can be given to `more: int`; a handler takes"),
        (keyword, r"a handler takes"),
        (missing, r"`Event\[Gone\]` of `event` cannot be resolved.*top of the module"),
        (print, r"is not a function; write `def f\(events: Batch"),
        (3, r"`3` is not a function"),
    ],
)
def test_what_is_unclear_is_an_error_that_says_what_to_write(handler: Any, message: str) -> None:
    with pytest.raises(Misuse, match=message):
        shape_of(handler, "shop.f")


def test_a_result_type_nobody_imported_does_no_harm() -> None:
    assert isinstance(shape_of(gone_result, "shop.f"), HandlerSignature)


class Page(msgspec.Struct):
    number: int
    size: int = 10


def asked(event: Event[Order], request: Request[Page], context: Context) -> None: ...
def consuming(consumer: Consumer[Order], context: Context) -> None: ...
def nothing() -> None: ...
def faked(event: Event[Order], now: Callable[[], float] = float, *, bank: Any = None) -> None: ...


def test_parameters_are_found_by_their_annotations_in_any_order() -> None:
    shape = shape_of(asked, "shop.f")
    assert (shape.parameters, shape.request) == (("event", "request", "context"), Page)
    shape = shape_of(consuming, "shop.f")
    assert (shape.parameters, shape.value, shape.takes_events) == (
        ("consumer", "context"),
        Order,
        False,
    )
    assert shape_of(nothing, "shop.f").parameters == ()
    assert shape_of(faked, "shop.f").parameters == ("event",)


def test_a_handler_that_takes_no_event_needs_a_trigger_that_says_no_more_than_when() -> None:
    app = App("shop")
    app.function(Cron("@daily"), name="daily")(nothing)
    app.function(Http("GET", "/health"), name="health")(nothing)
    with pytest.raises(
        Misuse, match="takes no event, but its trigger `StreamTrigger` gives it some"
    ):
        app.function(app.stream("orders"), name="orders")(nothing)  # type: ignore[arg-type]


def test_a_request_is_opened_as_the_type_that_the_handler_names() -> None:
    app = App("shop")

    @app.function(Http("GET", "/pages/{number:int}"))
    def page(request: Request[Page], context: Context) -> list[int]:
        return [request.params.number, request.params.size, context.attempt]

    @app.function(Cron("0 0 * * *"))
    def nightly() -> None:
        seen.append("night")

    seen: list[str] = []
    with World(app) as world:
        assert world.ask("GET", "/pages/3?size=4").body == [3, 4, 1]
        assert world.ask("GET", "/pages/3?size=x").status == 400
        world.advance("1d")
        assert seen == ["night"]
