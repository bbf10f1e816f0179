"""Spans of time as people write them."""

from __future__ import annotations

import pytest

from headrace.model.errors import Misuse
from headrace.model.spans import seconds_in


@pytest.mark.parametrize(
    ("span", "seconds"),
    [("90s", 90), ("5m", 300), ("1h30m", 5_400), ("1 h 30 m", 5_400), ("500ms", 0.5), ("1w", 604_800),
     ("1.5h", 5_400), (7, 7), (0.25, 0.25)],
)  # fmt: skip
def test_a_span_is_read(span: object, seconds: float) -> None:
    assert seconds_in(span, "it", low=0, high=1e9) == seconds


@pytest.mark.parametrize("span", ["", "5", "5 minutes", "m5", "-5m", "5m!", True, None, [5]])
def test_what_is_no_span_is_refused(span: object) -> None:
    with pytest.raises(Misuse, match="`it`"):
        seconds_in(span, "`it`", low=0, high=1e9)


@pytest.mark.parametrize("span", [-1, "1ms", "2h", float("nan"), float("inf")])
def test_a_span_out_of_range_is_refused(span: object) -> None:
    with pytest.raises(Misuse, match="out of range"):
        seconds_in(span, "`it`", low=0.1, high=3_600)
