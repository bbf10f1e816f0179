"""Headers of foreign messages: several of one name, and values that are not texts."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from headrace.sources.foreign.feed import headers_of

pytest.importorskip("pamqp")


def test_a_header_that_comes_several_times_keeps_all_its_values_in_order() -> None:
    pairs = [("a", "1"), ("b", "x"), ("a", "2"), ("a", "1")]
    assert headers_of(pairs) == {"a": '["1","2","1"]', "b": "x"}
    assert headers_of([]) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("text", "text"),
        (b"by\xffte", "by\ufffdte"),
        (7, "7"),
        (True, "true"),
        (None, "null"),
        (1.5, "1.5"),
        (float("inf"), "inf"),
        (Decimal("1.10"), "1.10"),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05Z"),
        ([1, "a", b"b", [None]], '[1,"a","b",[null]]'),
        (
            {"count": 1, "time": datetime(2026, 1, 2, tzinfo=UTC), "in": {"price": Decimal("0.1")}},
            '{"count":1,"time":"2026-01-02T00:00:00Z","in":{"price":0.1}}',
        ),
    ],
)
def test_what_rabbitmq_has_in_a_table_is_reported_as_json(value: Any, text: str) -> None:
    from headrace.sources.foreign.amqp_properties import header_text

    assert header_text(value) == text
