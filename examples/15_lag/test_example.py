"""Nothing runs below the threshold; above it everything is booked, once, whatever crashes."""

from __future__ import annotations

from function import app

from headrace.testing import World


def test_payments_are_booked_once_there_are_enough_of_them() -> None:
    with World(app) as world:
        for number in range(99):
            world.publish("payments", {"amount": 1}, key=f"p{number}")
        world.advance("1h")
        assert world.values("totals") == []
        assert world.lag("books.book") == 99

        for number in range(99, 2_000):
            world.publish("payments", {"amount": 1}, key=f"p{number}")
        world.crash("commit:after-fsync", passes=3)
        world.run_until_idle()
        assert sum(total["amount"] for total in world.values("totals")) == 2_000
        assert world.state("books.book")["total"] == 2_000
        assert world.lag("books.book") == 0
        assert len(world.deaths) == 1
