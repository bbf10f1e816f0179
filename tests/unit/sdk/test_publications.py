"""Streams that code publishes to by name."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import pytest

from headrace import App, Batch, Context, Event
from headrace.sdk.publications import published_in

app = App("seen")
orders = app.stream("seen.orders")
totals = app.stream("seen.totals")
others = app.external("others")
here = sys.modules[__name__]
ALL = {"seen.orders", "seen.totals", "others"}


def by_name(event: Event[Any], context: Context) -> None:
    context.publish(totals, 1)


def by_text(event: Event[Any], context: Context) -> None:
    context.publish("seen.totals", 1)
    context.publish("nobody's", 1)


def by_keyword(event: Event[Any], context: Context) -> None:
    context.publish(value=1, stream=others)


def by_choice(event: Event[Any], context: Context) -> None:
    context.publish(orders if event.value else totals, 1)


def by_module(event: Event[Any], context: Context) -> None:
    context.publish(here.totals, 1)


async def in_a_loop(batch: Batch[Any], context: Context) -> None:
    for _ in batch:

        def speak() -> None:
            context.publish(totals, 1)

        speak()


def helper(context: Context) -> None:
    context.publish(others, 1)
    by_helper(None, context)


def by_helper(event: Any, context: Context) -> None:
    context.publish(orders, 1)
    helper(context)


def wrapped(handler: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(handler)
    def around(*given: Any) -> Any:
        return handler(*given)

    return around


@wrapped
def decorated(event: Event[Any], context: Context) -> None:
    context.publish(totals, 1)


def nothing(event: Event[Any], context: Context) -> None:
    stream = orders
    context.publish(stream, 1)
    context.state.put("totals", totals.name)


def made() -> Callable[..., Any]:
    inner = totals

    def handler(event: Event[Any], context: Context) -> None:
        context.publish(inner, 1)

    return handler


@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        (by_name, ("seen.totals",)),
        (by_text, ("seen.totals",)),
        (by_keyword, ("others",)),
        (by_choice, ("seen.orders", "seen.totals")),
        (by_module, ("seen.totals",)),
        (in_a_loop, ("seen.totals",)),
        (by_helper, ("others", "seen.orders")),
        (decorated, ("seen.totals",)),
        (made(), ("seen.totals",)),
        (nothing, ()),
        (len, ()),
        (functools.partial(by_name), ()),
    ],
)
def test_streams_are_seen_where_the_source_names_them(
    handler: Callable[..., Any], expected: tuple[str, ...]
) -> None:
    assert published_in(handler, ALL) == expected


def test_code_without_a_source_file_says_nothing() -> None:
    names: dict[str, Any] = {"totals": totals}
    exec("def handler(event, context):\n    context.publish(totals, 1)\n", names)
    assert published_in(names["handler"], ALL) == ()


def test_an_apps_description_has_what_its_code_says() -> None:
    app.function(orders, name="one", publishes=[others])(by_name)
    [function] = app.spec().functions
    assert (function.publishes, function.in_code) == (("others",), ("seen.totals",))
