"""Clicks come out of order and too late, and the host dies in between."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from function import app

from headrace.testing import World

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_windows_close_once_by_event_time() -> None:
    with World(app) as world:

        def click(second: int, page: str) -> None:
            world.publish("clicks", page, key="ann", time=NOON + timedelta(seconds=second))

        click(5, "home")
        click(65, "shop")
        click(58, "shop")  # out of order, by less than the lateness
        world.crash()
        click(75, "cart")
        click(50, "late")  # its minute has closed
        click(3_600, "home")
        world.run_until_idle()
        assert [(one["start"], one["value"]) for one in world.values("minutes")] == [
            ("2026-03-01T12:00:00Z", 2),
            ("2026-03-01T12:01:00Z", 2),
        ]
        assert world.values("late_clicks") == ["late"]
        world.advance("3m")
        assert [one["start"] for one in world.values("minutes")][2:] == ["2026-03-01T13:00:00Z"]
        assert [one["value"] for one in world.values("stays")] == [
            ["home", "shop", "shop", "cart", "late"]
        ]
        assert world.flush("visits.stay") == 1
