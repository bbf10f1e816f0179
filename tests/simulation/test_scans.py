"""A prefix scan sees what the batches before it wrote, though their commits may be on their way."""

from __future__ import annotations

import pytest

from headrace import App, Batch, Context
from headrace.testing.world import World


@pytest.mark.parametrize("seed", range(5))
def test_a_scan_sees_what_the_batch_before_it_wrote(seed: int) -> None:
    app = App("shop")
    orders = app.stream("orders")
    seen = app.stream("seen")

    @app.function(orders, batch_size=1)
    def remember(events: Batch[int], context: Context) -> None:
        for event in events:
            context.state.put(f"order/{event.value:03d}", event.value)
            context.publish(seen, len(list(context.state.items("order/"))))

    with World(app, seed=seed) as world:
        world.publish("orders", *range(40))
        world.run_until_idle()
        assert world.values("seen") == list(range(1, 41))
