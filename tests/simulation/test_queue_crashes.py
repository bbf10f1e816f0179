"""A host that dies at every named place: queues and flow control lose nothing and double nothing."""

from __future__ import annotations

import json

import pytest

from headrace import App, Context, Debounce, Event, Sample, Throttle
from headrace.model.errors import Unavailable
from headrace.testing.world import World

PLACES = (
    "pump:after-read",
    "pump:before-invoke",
    "pump:after-invoke",
    "pump:after-commit",
    "claim:before-write",
    "claim:after-write",
    "recovery:claimed",
    "lease:before-write",
    "lease:after-write",
    "delay:before-append",
)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("passes", [1, 3])
def test_every_message_is_acknowledged_once(place: str, passes: int) -> None:
    app = App("shop")
    jobs = app.queue("jobs", visibility=10.0, max_receives=20, fifo=True)
    with World(app, seed=passes) as world:
        for n in range(6):
            world.publish("jobs", {"n": n}, key=f"k{n % 2}", headers={"headrace-delay": str(n)})
        world.crash(at=place, passes=passes)
        consumer = world.consumer(jobs)
        done: list[int] = []
        for _ in range(60):
            try:
                for message in consumer.receive():
                    if consumer.acknowledge(message):
                        done.append(json.loads(message.event.value)["n"])
            except Unavailable:
                pass
            world.advance(3)
        assert len(world.published("jobs")) == 6
        assert world.lag() == 0
        assert world.dead_letters() == []
    assert sorted(done) == list(range(6))
    for key in (0, 1):
        assert [n for n in done if n % 2 == key] == [n for n in range(6) if n % 2 == key]


@pytest.mark.parametrize("place", PLACES[:7])
@pytest.mark.parametrize("passes", [1, 2, 4])
def test_flow_control_comes_to_the_same_result(place: str, passes: int) -> None:
    app = App("shop")
    edits = app.stream("edits")
    settled, slow, rare = app.stream("settled"), app.stream("slow"), app.stream("rare")

    @app.function(edits, debounce=Debounce(5), output=settled, parallelism=3)
    def settle(event: Event[int]) -> int:
        return event.value

    @app.function(edits, throttle=Throttle(1, per=2, per_key=True), batch_size=1, output=slow)
    def slowly(event: Event[int], context: Context) -> int:
        return event.value

    @app.function(edits, sample=Sample(2, per=1000), batch_size=2, output=rare)
    def rarely(event: Event[int]) -> int:
        return event.value

    with World(app, seed=passes) as world:
        world.crash(at=place, passes=passes)
        for n in range(8):
            world.publish("edits", n, key=f"k{n % 2}", id=f"edit-{n}")
            world.advance(1)
        world.run_until_idle()
        assert sorted(world.values("settled")) == [6, 7]
        assert sorted(world.values("slow")) == list(range(8))
        assert sorted(world.values("rare")) == [0, 1, 2, 3]
        assert world.lag() == 0
