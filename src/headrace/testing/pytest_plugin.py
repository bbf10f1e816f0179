"""Plugin for pytest: the fixture `world`, and `--headrace-seeds` to run a test under many seeds.

def test_every_order_is_priced_once(world):
    with world(shop) as w: ...
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take `--headrace-seeds` and `--headrace-seed`."""
    group = parser.getgroup("headrace")
    group.addoption(
        "--headrace-seeds",
        type=int,
        default=1,
        metavar="N",
        help="run every test that uses the `world` fixture under N seeds",
    )
    group.addoption(
        "--headrace-seed",
        type=int,
        default=0,
        metavar="SEED",
        help="the first seed (the one that failed, to see it fail again)",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per seed, where a world is asked for."""
    if "headrace_seed" in metafunc.fixturenames:
        first = metafunc.config.getoption("--headrace-seed")
        count = max(metafunc.config.getoption("--headrace-seeds"), 1)
        seeds = range(first, first + count)
        metafunc.parametrize("headrace_seed", seeds, ids=[f"seed{seed}" for seed in seeds])


@pytest.fixture
def world(headrace_seed: int) -> Callable[..., Any]:
    """A maker of worlds that have the seed of this run."""

    def make(*apps: Any, **more: Any) -> Any:
        # Loaded when first asked for: a test run that makes no world need not wait for it.
        from headrace.testing.world import World

        return World(*apps, **({"seed": headrace_seed} | more))

    return make
