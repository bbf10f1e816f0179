"""`Lag`: what it refuses, and how many instances it asks for."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.model.errors import Misuse
from headrace.sources import Lag

STEPS = {0: 0, 1_000: 1, 10_000: 4}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"stream": ""}, "is not a stream"),
        ({"thresholds": {}}, "`thresholds=` says nothing"),
        ({"thresholds": {-1: 1}}, "`thresholds=` has -1: 1"),
        ({"thresholds": {1: 2_000}}, "`thresholds=` has 1: 2000"),
        ({"thresholds": {1: 4, 10: 2}}, "at least as many instances"),
        ({"thresholds": {0: 0}}, "in the end one"),
        ({"slack": 1}, "`slack=1` is not a share"),
        ({"lifespan": "soon"}, "`lifespan=` of `Lag('orders')` is 'soon'"),
        ({"every": 0}, "`every=` of `Lag('orders')` is 0 s"),
    ],
)
def test_what_cannot_work_is_refused_with_the_fix(given: dict[str, Any], said: str) -> None:
    with pytest.raises(Misuse, match=re.escape(said)):
        Lag(**{"stream": "orders"} | given)


@pytest.mark.parametrize(
    ("lag", "now", "wanted"),
    [
        (0, 0, 0),
        (999, 0, 0),
        (1_000, 0, 1),
        (9_999, 1, 1),
        (10_000, 1, 4),
        (9_000, 4, 4),
        (8_001, 4, 4),
        (7_999, 4, 1),
        (801, 1, 1),
        (799, 1, 0),
        (799, 4, 0),
    ],
)
def test_more_run_at_a_threshold_and_fewer_only_well_below_it(
    lag: int, now: int, wanted: int
) -> None:
    assert Lag("orders", STEPS).instances(lag, now) == wanted


@given(lag=st.integers(0, 1 << 40), now=st.integers(0, 4), slack=st.floats(0, 0.99))
def test_asked_again_at_the_same_lag_it_says_the_same(lag: int, now: int, slack: float) -> None:
    trigger = Lag("orders", STEPS, slack=slack)
    wanted = trigger.instances(lag, now)
    assert trigger.instances(lag, wanted) == wanted
    assert trigger.instances(lag + 1, wanted) >= wanted


def test_it_travels_as_msgpack_and_json() -> None:
    trigger = Lag("orders", STEPS, lifespan="5m")
    assert trigger.lifespan_s == 300.0
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(trigger), type=Lag) == trigger
    assert msgspec.json.decode(msgspec.json.encode(trigger), type=Lag) == trigger
