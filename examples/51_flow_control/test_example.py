"""Ten seconds of typing, an hour of alarms, and a crash in the middle."""

from __future__ import annotations

from function import app

from headrace.testing import World


def test_the_last_edit_is_indexed_and_the_partner_hears_of_all_slowly() -> None:
    with World(app) as world:
        for n in range(10):
            world.publish("edits", {"n": n}, key="tea")
        world.advance("2s")
        world.crash()
        assert 3 <= len(world.values("told")) <= 5
        world.run_until_idle()
        assert world.values("indexed") == [{"n": 9}]
        assert world.values("told") == [{"n": n} for n in range(10)]


def test_one_alarm_an_hour_is_mailed_for_each_machine() -> None:
    with World(app) as world:
        for n in range(90):
            world.publish("reports", {"minute": n}, key="worker")
            world.publish("reports", {"minute": n}, key="mill")
            world.advance("1m")
        world.run_until_idle()
        assert sorted(value["minute"] for value in world.values("mailed")) == [0, 0, 60, 60]
        assert world.left_out("search.mail") == {"sample": 176}
