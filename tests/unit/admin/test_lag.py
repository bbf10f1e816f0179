"""Who looks at many rows lets others come in between, and finds what belongs to each by its key."""

from __future__ import annotations

from typing import Any

from headrace import App, Batch
from headrace.admin.delivery_states import DeliveryStates
from headrace.admin.lag import LagReport
from headrace.environment.time_slices import SLICE_S
from headrace.runtime.instance_views import FailedStart, every_start_succeeds
from headrace.testing import World
from headrace.testing.virtual_time import VirtualClock

PARTITIONS = 64


class Slow(VirtualClock):
    """Every look at it takes a tenth of a slice; counts how often others came in between."""

    rested = 0
    seconds = 0.0

    def monotonic(self) -> float:
        self.seconds += SLICE_S / 10
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.rested += 1
        await super().sleep(seconds)


def two_streams() -> App:
    app = App("shop")
    one, two = app.stream("one", partitions=PARTITIONS), app.stream("two", partitions=PARTITIONS)

    @app.function(one)
    def first(events: Batch[Any]) -> None: ...

    @app.function(two)
    def second(events: Batch[Any]) -> None: ...

    return app


def test_others_come_in_between_many_rows() -> None:
    with World(two_streams()) as world:
        world.advance("1s")
        node = world._lives.node
        clock = Slow(world._lives.loop)
        states = DeliveryStates(node.supervisor, every_start_succeeds)
        lag = LagReport(node.host_storage, world._lives.broker, states, clock)
        rows = world._lives.loop.drive(lag.rows())
        assert len(rows) == 2 * PARTITIONS
        assert clock.rested > 5


def test_a_partition_that_is_not_delivered_to_yet_is_starting() -> None:
    with World(two_streams()) as world:
        world.advance("1s")
        supervisor = world._lives.node.supervisor
        reading = supervisor._readings["shop.first"]["one",]
        worker = reading._workers.pop(3)
        assert supervisor.state_of("shop.first", "one", 3) == "starting"
        reading._revoked.add(3)
        assert supervisor.state_of("shop.first", "one", 3) == "stopped"
        reading._workers[3] = worker


def test_each_row_tells_of_its_own_partition() -> None:
    with World(two_streams()) as world:
        world.advance("1s")
        supervisor = world._lives.node.supervisor
        supervisor.halted["shop.first", ("one",), 3] = "Corrupt: a page"
        assert supervisor.state_of("shop.first", "one", 3) == "halted: Corrupt: a page"
        assert supervisor.state_of("shop.first", "one", 4) == "running"
        assert supervisor.state_of("shop.second", "two", 3) == "running"
        assert supervisor.state_of("shop.first", "two", 3) == "stopped"
        assert supervisor.worker("shop.first", "one", 3) is not None
        assert supervisor.worker("shop.first", "one", PARTITIONS) is None


def test_where_no_instance_starts_every_partition_says_so_unless_it_is_held_otherwise() -> None:
    failed = FailedStart("ConnectionError: no database", 1, running=False)
    with World(two_streams()) as world:
        world.advance("1s")
        world.pause("shop.second")

        def state(function: str, stream: str, why: FailedStart) -> str:
            supervisor = world._lives.node.supervisor
            return DeliveryStates(supervisor, lambda _: why).of(function, stream, 0)

        assert state("shop.first", "one", failed) == "not starting: ConnectionError: no database"
        assert state("shop.second", "two", failed) == "paused"
        others = FailedStart("ConnectionError: no database", 1, running=True)
        assert state("shop.first", "one", others) == "running"
