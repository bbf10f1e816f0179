"""An operator's wish waits for the partition's writer; whoever asked may have gone by then."""

from __future__ import annotations

import asyncio

import pytest

from headrace import App, Context, Event
from headrace.testing.world import World


@pytest.mark.parametrize("stays", [True, False])
def test_a_wish_of_somebody_who_has_gone_is_not_carried_out_and_breaks_nothing(
    stays: bool,
) -> None:
    app = App("shop")
    orders, seen = app.stream("orders"), app.stream("seen")

    @app.function(orders, timeout=60)
    async def handle(event: Event[int], context: Context) -> None:
        await asyncio.sleep(5)
        context.publish(seen, event.value)

    with World(app) as world:
        world.publish("orders", 1)
        world.advance(1)
        wish = world._lives.loop.create_task(
            world._lives.node.supervisor.reset("shop.handle", "earliest")
        )
        world.advance(1)
        if not stays:
            wish.cancel()
        world.run_until_idle()
        assert world.values("seen") == ([1, 1] if stays else [1])
        assert world.lag() == 0
