"""Triggers that were moved or taken away: what they leave behind is told of."""

from __future__ import annotations

from typing import Any

from headrace import App, Batch, Cron, Every
from headrace.admin.orphaned_events import OrphanedEvents, leftovers
from headrace.model.triggers.schedules import Schedule
from headrace.testing import World


def clockwork(*schedules: Schedule) -> App:
    app = App("clockwork")

    @app.function(app.stream("in"), *schedules)
    def tick(events: Batch[Any]) -> None: ...

    return app


def after(world: World, app: App) -> list[OrphanedEvents]:
    """What is left behind once the app is deployed in place of the one before."""
    lives = world._lives
    world._drive(lives.node.supervisor.deploy(app.spec()))
    found: list[OrphanedEvents] = world._drive(
        leftovers(app.spec(), storage=lives.storage, broker=lives.broker)
    )
    return found


def test_events_of_a_trigger_that_was_taken_away_are_told_of() -> None:
    with World(clockwork(Every("1m"))) as world:
        world.pause("clockwork.tick")
        world.advance("150s")
        [left] = after(world, clockwork())
        assert left == OrphanedEvents("clockwork.tick", "_clockwork.tick.every.0", 2)
        assert "2 events that `clockwork.tick` has not finished" in str(left)
        # Back in its place, it goes on where it was.
        assert after(world, clockwork(Every("1m"))) == []


def test_a_trigger_that_was_moved_leaves_what_was_not_delivered() -> None:
    with World(clockwork(Every("1m"))) as world:
        world.pause("clockwork.tick")
        world.advance("90s")
        assert [
            each.stream for each in after(world, clockwork(Cron("0 7 * * *"), Every("1m")))
        ] == ["_clockwork.tick.every.0"]
        # Another of the same kind in its place takes over what is there.
        assert after(world, clockwork(Every("1h"), Every("1m"))) == []


def test_what_was_finished_before_is_nothing_to_tell_of() -> None:
    with World(clockwork(Every("1m"))) as world:
        world.advance("150s")
        assert after(world, clockwork()) == []
