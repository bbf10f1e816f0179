"""A week of the shop's calendar in a blink, with a host that dies every day."""

from __future__ import annotations

from datetime import UTC, datetime

from function import app

from headrace.testing import World


def test_a_week_with_the_end_of_summer_time() -> None:
    with World(app, start=datetime(2026, 10, 23, tzinfo=UTC)) as world:
        for _ in range(7):
            world.advance("12h")
            world.crash()
            world.advance("12h")
        assert [value["for"] for value in world.values("reports")] == [
            "2026-10-23T05:00:00Z",
            "2026-10-26T06:00:00Z",
            "2026-10-27T06:00:00Z",
            "2026-10-28T06:00:00Z",
            "2026-10-29T06:00:00Z",
        ]
        assert len(world.values("checks")) == 7 * 24 * 4


def test_the_sale_starts_once_and_the_month_is_closed_on_its_last_day() -> None:
    with World(app, start=datetime(2026, 11, 26, tzinfo=UTC)) as world:
        world.advance("4d20h")
        world.run_until_idle()
        assert {"sale": "starts"} in world.values("reports")
        assert {"report": "month", "for": "2026-11-30T18:00:00Z"} in world.values("reports")
