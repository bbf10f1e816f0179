"""A message is its receiver's for as long as was said, however the wall clock is set meanwhile."""

from __future__ import annotations

import pytest

from headrace import App
from headrace.testing.world import World

app = App("shop")
jobs = app.queue("jobs", visibility=10.0, max_receives=9)


@pytest.mark.parametrize("back", [3_600.0, -3_600.0, 86_400.0, -86_400.0])
def test_a_lease_ends_when_its_time_is_over_and_not_when_the_clock_says_so(back: float) -> None:
    with World(app) as world:
        world.publish("jobs", {"n": 1})
        consumer = world.consumer(jobs)
        (held,) = consumer.receive()
        world._lives.clock.set_back(back)
        world.advance(9)
        assert consumer.receive() == []
        world.advance(2)
        (again,) = consumer.receive()
        assert again.attempt == 2
        assert not consumer.acknowledge(held)
        assert consumer.acknowledge(again)


def test_a_receipt_stays_good_over_a_clock_that_is_set() -> None:
    with World(app) as world:
        world.publish("jobs", {"n": 1})
        consumer = world.consumer(jobs)
        (held,) = consumer.receive()
        world._lives.clock.set_back(-3_600.0)
        assert consumer.acknowledge(held)
        world.advance(1)
        assert world.lag() == 0
