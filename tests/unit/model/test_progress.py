"""Lag is counted in one place: what a log holds, less what is finished of it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import headrace
from headrace.model.effects import Progress


@pytest.mark.parametrize(
    ("progress", "low", "high", "lag"),
    [
        (Progress(0), 0, 5, 5),
        (Progress(3), 0, 5, 2),
        (Progress(3, (4,)), 0, 6, 2),
        (Progress(0), 3, 5, 2),
        (Progress(9), 0, 5, 0),
        # Retention took offsets 0 to 4, among them one that was finished out of order.
        (Progress(0, (3, 6)), 5, 10, 4),
    ],
)
def test_the_lag_is_what_is_held_and_not_finished(
    progress: Progress, low: int, high: int, lag: int
) -> None:
    assert progress.unfinished(low, high) == lag


@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 20), st.sets(st.integers(0, 30)))
def test_the_lag_is_the_number_of_offsets_left(
    watermark: int, low: int, size: int, done: set[int]
) -> None:
    high = max(low, watermark) + size
    sparse = tuple(sorted(offset for offset in done if watermark <= offset < high))
    left = set(range(low, high)) - set(range(watermark)) - set(sparse)
    assert Progress(watermark, sparse).unfinished(low, high) == len(left)


def test_nobody_else_counts_a_lag() -> None:
    """Differences between a log's end and a position stand in one module."""
    source = Path(headrace.__file__).parent
    found = [
        file.name
        for file in (*source.glob("admin/*.py"), *source.glob("delivery/**/*.py"))
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.BinOp)
        and isinstance(node.op, ast.Sub)
        and ast.unparse(node.left).endswith("extent.high")
        and not isinstance(node.right, ast.Constant)
    ]
    assert found == []
