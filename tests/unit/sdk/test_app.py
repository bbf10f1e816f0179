"""Declaring streams and functions, and the errors of those who declare them wrongly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from headrace import (
    App,
    Batch,
    Breaker,
    Context,
    DeadLetter,
    Debounce,
    Event,
    Http,
    ParkKey,
    Resources,
    Retry,
    Scaling,
    Singleton,
    Throttle,
)
from headrace.errors import Misuse
from headrace.model.function import AppSpec
from headrace.model.triggers.base import CallTrigger, StreamTrigger


class Order(msgspec.Struct):
    id: int


class Custom:
    """A type that msgspec does not know."""


def handler(events: Batch[Any], context: Context) -> None:
    """Do nothing."""


def test_a_declaration_becomes_a_spec() -> None:
    shop = App("shop", owner="team-orders")
    orders = shop.stream("orders", 8, Order, retention_age=60, cleanup="compact")
    priced = shop.stream("orders.priced", private=True, max_event_bytes=10)
    other = shop.external("audit")

    @shop.function(
        orders.read(start="latest", pattern={"key": ["a"]}),
        batch_size=500,
        batch_window=0.2,
        retry=Retry(attempts=3),
        on_failure=ParkKey(),
        breaker=None,
        scaling=Scaling(max=2),
        resources=Resources(network=False),
        output=priced,
        publishes=[other],
        order="key",
        parallelism=4,
        commit="before",
        timeout=5,
        bisect=False,
    )
    def price(events: Batch[Order], context: Context) -> None:
        """Quote every order."""

    spec = shop.spec("abc")
    assert (spec.name, spec.owner, spec.version) == ("shop", "team-orders", "abc")
    assert [(s.name, s.owner, s.partitions, s.private) for s in spec.streams] == [
        ("orders", "shop", 8, False),
        ("orders.priced", "shop", 1, True),
    ]
    (function,) = spec.functions
    assert function.name == "shop.price"
    assert function.triggers == (
        StreamTrigger(streams=("orders",), start="latest", pattern={"key": ["a"]}),
    )
    assert function.version == "abc"
    assert function.output == "orders.priced"
    assert function.publishes == ("audit",)
    assert function.breaker is None
    assert function.on_failure == ParkKey()
    assert (function.batch_size, function.order, function.parallelism) == (500, "key", 4)
    assert function.summary == "Quote every order."
    assert function.source.startswith(__file__)


def test_a_spec_travels_over_the_wire() -> None:
    shop = App("shop")
    shop.function(shop.stream("orders", 2, Order))(handler)
    spec = shop.spec("v")
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(spec), type=AppSpec) == spec


def test_the_handler_stays_an_ordinary_function() -> None:
    shop = App("shop")
    assert shop.function(shop.stream("orders"))(handler) is handler


def test_one_handler_may_serve_two_functions() -> None:
    shop = App("shop")
    shop.function(shop.stream("a"), name="first")(handler)
    shop.function(shop.stream("b"), name="second")(handler)
    assert list(shop.functions) == ["shop.first", "shop.second"]


def test_defaults_are_those_of_the_model() -> None:
    shop = App("shop")
    shop.function(shop.stream("orders"))(handler)
    (function,) = shop.spec().functions
    assert function.retry == Retry()
    assert function.on_failure == DeadLetter()
    assert function.breaker == Breaker()
    assert function.batch_size == 100


def test_several_streams_are_several_triggers_unless_they_are_merged() -> None:
    shop = App("shop")
    a, b = shop.stream("a", 4), shop.stream("b", 4)
    shop.function(a, b, name="apart")(handler)
    shop.function(a, b, name="merged", merge="time", idle_timeout=2.0)(handler)
    apart, merged = shop.spec().functions
    assert apart.triggers == (StreamTrigger(streams=("a",)), StreamTrigger(streams=("b",)))
    assert merged.triggers == (StreamTrigger(streams=("a", "b"), merge="time", idle_timeout=2.0),)


def test_a_function_without_streams_is_called() -> None:
    shop = App("shop")
    shop.function()(handler)
    assert shop.spec().functions[0].triggers == (CallTrigger(),)


@pytest.mark.parametrize(
    ("start", "written"),
    [
        ("earliest", "earliest"),
        (42, "42"),
        ("42", "42"),
        (datetime(2026, 1, 1, tzinfo=UTC), "@1767225600000000"),
        ("@17", "@17"),
    ],
)
def test_a_start_can_be_said_in_several_ways(start: Any, written: str) -> None:
    shop = App("shop")
    shop.function(shop.stream("orders").read(start=start))(handler)
    (trigger,) = shop.spec().functions[0].triggers
    assert isinstance(trigger, StreamTrigger)
    assert trigger.start == written


def test_hooks_are_kept_and_stay_functions() -> None:
    shop = App("shop")

    @shop.init
    def connect() -> None: ...

    @shop.on_stop
    def leave() -> None: ...

    assert shop.hooks["init"] == [connect]
    assert shop.hooks["on_stop"] == [leave]


def _twice(shop: App) -> None:
    shop.function(shop.streams["orders"], name="f")(handler)
    shop.function(shop.streams["orders"], name="f")(handler)


def _elsewhere(shop: App) -> None:
    shop.function(App("other").stream("theirs"))(handler)


def _wrong_type(shop: App) -> None:
    @shop.function(shop.stream("numbers", value=int))  # type: ignore[arg-type]  # that is the test
    def f(event: Event[str]) -> None: ...


def _annotated_despite_bytes(shop: App) -> None:
    @shop.function(shop.external("raw", codec="bytes"))
    def f(event: Event[Order]) -> None: ...


def _annotated_oddly(shop: App) -> None:
    @shop.function(shop.streams["orders"])
    def f(event: Event[Custom]) -> None: ...


def _yields_nowhere(shop: App) -> None:
    @shop.function(shop.streams["orders"])
    def f(event: Event[Any]) -> Any:
        yield 1


def _generating_hook(shop: App) -> None:
    @shop.init
    def hook() -> Iterator[None]:
        yield


def _read(**options: Any) -> Callable[[App], None]:
    def wrong(shop: App) -> None:
        shop.function(shop.streams["orders"].read(**options))(handler)

    return wrong


def _only_called(**options: Any) -> Callable[[App], None]:
    def wrong(shop: App) -> None:
        shop.function(Http("POST", "/orders"), **options)(handler)

    return wrong


def _answers_nobody(shop: App) -> None:
    @shop.function(shop.streams["orders"])
    def count(events: Batch[Any]) -> int:
        return len(events)


def _merged_unlike(shop: App) -> None:
    left, right = shop.streams["orders"], shop.stream("others")
    shop.function(left.read(start="latest"), right, merge="time")(handler)


def _declare(**options: Any) -> Callable[[App], None]:
    def wrong(shop: App) -> None:
        shop.function(shop.streams["orders"], **options)(handler)

    return wrong


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (_declare(batch_size=0), r"`batch_size=0` is out of range; use 1 to 10,000"),
        (_declare(batch_size=10_001), r"out of range; use 1 to 10,000"),
        (_declare(batch_size=True), r"`batch_size=True` is not a whole number; use 1"),
        (_declare(batch_size=1.5), r"`batch_size=1.5` is not a whole number"),
        (
            _declare(batch_window=-1),
            r"`batch_window=` is -1 s, which is out of range; use 0 to 3,600",
        ),
        (_declare(timeout=0), r"`timeout=` is 0 s, which is out of range"),
        (_declare(timeout="soon"), r"`timeout=` is 'soon'; write seconds, a text such as"),
        (_declare(batchsize=5), r"no option `batchsize` \(did you mean `batch_size`"),
        (_declare(order="keyd"), r"did you mean `key`.*`partition` or `key` or `none`"),
        (_declare(parallelism=2), r'needs events that may overtake.*order="key"'),
        (_declare(retry=5), r"`retry=5` is not a policy; use `retry=Retry\(...\)`"),
        (_declare(on_failure=DeadLetter), r"it is a class; call it.*`DeadLetter\(\)`"),
        (_declare(bisect="no"), r"use True or False"),
        (_read(start="now"), r"not a place to begin"),
        (_read(start=datetime(2026, 1, 1)), r"no time zone"),  # noqa: DTZ001  # that is the test
        (_declare(merge="time"), r"needs two streams"),
        (_declare(idle_timeout=1.0), r"only with `merge"),
        (_declare(lateness=1.0), r"it is called `idle_timeout` now"),
        (_declare(start="latest"), r"write `stream.read\(start=...\)`"),
        (
            _answers_nobody,
            r"annotated to return `int`.*`output=<stream>`, or annotate it with `-> None`",
        ),
        (_merged_unlike, r"give every `read\(...\)` the same"),
        (_only_called(debounce=Debounce("5s")), r"`debounce=` has no effect here: .*only called"),
        (_only_called(batch_size=5), r"`batch_size=` has no effect here"),
        (_declare(output="orders"), r"`'orders'` is not a stream \(did you mean `orders`\?\)"),
        (_read(pattern="key"), r"`pattern='key'` is not a dict"),
        (lambda shop: _declare(publishes=shop.streams["orders"])(shop), r"write it in brackets"),
        (_annotated_despite_bytes, r"annotated with values of `Order`.*`raw`.*holds bytes"),
        (_annotated_oddly, r"`Custom` cannot be decoded"),
        (_declare(name="über"), r"cannot be the name of a function"),
        (lambda shop: shop.function(handler), r"lacks its parentheses"),
        (lambda shop: shop.function(merge="time")(handler), r"`merge=` needs a stream"),
        (_twice, r"declared before, at .*test_app.py:\d+"),
        (_elsewhere, r"declared by app `other`; write `shop.external\(\"theirs\"\)`"),
        (_wrong_type, r"annotated with values of `str`.*holds `int`"),
        (_yields_nowhere, r"yields, but has nowhere to put it; add `output="),
        (_generating_hook, r"takes a function, not a generator.*`@shop.resource`"),
        (lambda shop: shop.init(handler), r"takes a function without parameters"),
        (lambda shop: shop.stream("orders"), r"stream `orders` was declared before, at .*test_app"),
        (lambda shop: shop.stream("a b"), r"cannot be the name of a stream; use 1 to 200"),
        (lambda shop: shop.stream("_mine"), r"cannot be the name"),
        (lambda shop: shop.stream("x", 0), r"`partitions=0` is out of range"),
        (
            lambda shop: shop.stream("x", "4"),
            r"`partitions='4'` is not a whole number; use 1 to 100,000",
        ),
        (
            lambda shop: shop.stream("x", retention_age=0),
            r"`retention_age=` is 0 s, which is out of",
        ),
        (
            lambda shop: shop.stream("x", retention_age=float("inf")),
            r"is inf s, which is out of range",
        ),
        (lambda shop: shop.stream("x", retention_age=float("nan")), r"out of range"),
        (lambda shop: shop.stream("x", dedupe_window=float("inf")), r"use 0 to 3,155,760,000 sec"),
        (lambda shop: shop.stream("x", cleanup="shred"), r"use `delete` or `compact`"),
        (lambda shop: shop.stream("x", codec="xml"), r"`codec='xml'` is unknown; use `json` or"),
        (
            lambda shop: shop.stream("x", value=Custom),
            r"`Custom` cannot be decoded: .*use a msgspec Struct, a dataclass",
        ),
        (lambda shop: shop.stream("x", max_event_bytes=1 << 40), r"out of range"),
        (lambda shop: App(""), r"cannot be the name of an app"),
    ],
)
def test_what_cannot_work_is_refused_with_place_cause_and_fix(
    wrong: Callable[[App], Any], message: str
) -> None:
    shop = App("shop")
    shop.stream("orders")
    with pytest.raises(Misuse, match=message) as caught:
        wrong(shop)
    assert "test_app.py:" in str(caught.value)


def test_streams_to_be_merged_must_be_co_partitioned() -> None:
    shop = App("shop")
    with pytest.raises(Misuse, match=r"`a` has 2, `b` has 3; declare them with the same"):
        shop.function(shop.stream("a", 2), shop.stream("b", 3), merge="time")(handler)


def test_merging_with_another_apps_stream_waits_for_the_deployment_to_judge() -> None:
    shop = App("shop")
    shop.function(shop.stream("a", 2), shop.external("b"), merge="time")(handler)
    assert len(shop.spec().functions) == 1


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("parallelism", {"order": "key", "parallelism": 2}),
        ("order", {"order": "none"}),
        ("debounce", {"debounce": Debounce(1)}),
        ("singleton", {"singleton": Singleton()}),
        ("batch_per_key", {"batch_per_key": True}),
        ("throttle", {"throttle": Throttle(1, per_key=True)}),
    ],
)
def test_what_lets_events_overtake_each_other_is_refused_with_a_merge(
    name: str, options: dict[str, Any]
) -> None:
    shop = App("shop")
    one, other = shop.stream("one"), shop.stream("other")
    with pytest.raises(Misuse, match=f"`{name}=` lets events overtake"):
        shop.function(one, other, merge="time", **options)(handler)
    shop.function(one, other, merge="time", order="partition", throttle=Throttle(5))(handler)


def test_an_init_hook_for_a_function_that_is_not_there_is_refused() -> None:
    shop = App("shop")
    shop.function(name="price")(handler)

    @shop.init(only=["prise"])
    def connect() -> None: ...

    with pytest.raises(Misuse, match=r"`connect` names `prise`.*did you mean `price`"):
        shop.spec()
    with pytest.raises(Misuse, match="names no functions"):
        shop.init(only=[])
