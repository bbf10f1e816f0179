"""What becomes of each of a function's readings from one version to the next."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from headrace.delivery.assignment.changeover import Step, steps
from headrace.model.flow_control import Concurrency
from headrace.model.function import FunctionSpec
from headrace.model.policy import Retry
from headrace.model.triggers.base import StreamTrigger, Trigger
from headrace.model.triggers.files import Custom
from headrace.model.triggers.http import Http
from headrace.model.triggers.lag import Lag
from headrace.model.triggers.schedules import Every

ORDERS = StreamTrigger(streams=("orders",))
BOTH = StreamTrigger(streams=("orders", "stock"), merge="time")
HOURLY = Every(3_600)
OWN_TICKS = ("_shop.pack.every.0",)


def pack(*triggers: Trigger, version: str = "1", **more: Any) -> FunctionSpec:
    return FunctionSpec(name="shop.pack", app="shop", version=version, triggers=triggers, **more)


def test_a_function_that_is_new_is_opened_and_one_that_is_gone_is_closed() -> None:
    assert steps(None, pack(ORDERS)) == {("orders",): Step.OPEN}
    assert steps(pack(ORDERS), None) == {("orders",): Step.CLOSE}


def test_other_code_alone_leaves_a_reading_as_it_is() -> None:
    new = pack(ORDERS, version="2", source="app.py:9", summary="Packs.")
    assert steps(pack(ORDERS), new) == {("orders",): Step.KEEP}


def test_another_route_leaves_a_stream_of_the_function_as_it_is() -> None:
    assert steps(pack(ORDERS, Http(("POST",), "/pack")), pack(ORDERS, Http(("PUT",), "/pack"))) == {
        ("orders",): Step.KEEP
    }


@pytest.mark.parametrize(
    "more",
    [
        {"batch_size": 7},
        {"timeout": 9.0},
        {"order": "key"},
        {"retry": Retry(attempts=9)},
        {"output": "packed"},
        {"concurrency": Concurrency(1)},
    ],
)
def test_what_delivery_goes_by_renews_a_reading(more: dict[str, Any]) -> None:
    assert steps(pack(ORDERS), pack(ORDERS, **more)) == {("orders",): Step.RENEW}


def test_another_pattern_or_idle_timeout_renews_a_reading() -> None:
    assert steps(pack(BOTH), pack(replace(BOTH, idle_timeout=5.0))) == {BOTH.streams: Step.RENEW}


def test_a_stream_more_is_another_reading() -> None:
    assert steps(pack(ORDERS), pack(BOTH)) == {
        ("orders",): Step.CLOSE,
        ("orders", "stock"): Step.OPEN,
    }


def test_another_date_renews_the_reading_of_its_own_stream() -> None:
    assert steps(pack(HOURLY), pack(HOURLY, version="2")) == {OWN_TICKS: Step.KEEP}
    assert steps(pack(HOURLY), pack(Every(60))) == {OWN_TICKS: Step.RENEW}


def test_runs_that_last_are_ended_for_other_code_and_only_for_that() -> None:
    lag = Lag("orders", thresholds={0: 0, 1: 1})
    assert steps(pack(lag), pack(lag)) == {("orders",): Step.KEEP}
    assert steps(pack(lag), pack(lag, version="2")) == {("orders",): Step.REPLACE}
    assert steps(pack(lag), pack(ORDERS)) == {("orders",): Step.REPLACE}
    assert steps(pack(ORDERS), pack(lag)) == {("orders",): Step.REPLACE}


def test_the_authors_own_source_is_begun_anew_with_other_code() -> None:
    feed = Custom(function="shop.feed")
    own = ("_shop.pack.custom.0",)
    assert steps(pack(feed), pack(feed)) == {own: Step.KEEP}
    assert steps(pack(feed), pack(feed, version="2")) == {own: Step.RENEW}
