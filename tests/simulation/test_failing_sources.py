"""A trigger that brings nothing in says so, and why."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from headrace import App, Event
from headrace.admin.sources import Sources
from headrace.testing import World


def test_a_generator_that_raises_is_told_with_its_error_until_it_has_run_for_a_while() -> None:
    app = App("shop")
    broken = True

    @app.source(every=1.0)
    def feed(checkpoint: Any) -> Any:
        if broken:
            raise ValueError("no such page")
        yield from ()

    @app.function(feed)
    def take(event: Event[Any]) -> None: ...

    with World(app) as world:
        node = world._lives.node
        sources = Sources(node.supervisor, world._lives.clock, outside=False)
        with pytest.raises(AssertionError, match="stopped by its own fault"):
            world.advance("5s")
        (row,) = world._lives.loop.drive(sources.cached_rows())
        assert (row.function, row.trigger, row.state) == ("shop.take", "custom", "failing")
        assert "ValueError: no such page" in row.error
        assert row.failures > 1
        broken = False
        with suppress(AssertionError):  # a world remembers what has failed once
            world.advance("70s")
        (row,) = world._lives.loop.drive(sources.cached_rows())
        assert (row.state, row.error) == ("running", "")


def test_streams_and_calls_have_no_source() -> None:
    app = App("shop")

    @app.function(app.stream("orders"))
    def take(event: Event[Any]) -> None: ...

    with World(app) as world:
        node = world._lives.node
        assert (
            world._lives.loop.drive(
                Sources(node.supervisor, world._lives.clock, outside=False).cached_rows()
            )
            == []
        )
