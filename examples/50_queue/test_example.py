"""The printer receives in order, a crash takes nothing from it, and poison ends as a dead letter."""

from __future__ import annotations

import json

from function import app

from headrace.testing import World


def picture(name: str, owner: str = "ada", width: int = 40) -> dict[str, object]:
    return {"name": name, "width": width, "owner": owner}


def test_the_printer_gets_each_owner_s_pictures_in_order_over_a_crash() -> None:
    with World(app) as world:
        world.publish("jobs", picture("sea"))
        world.advance("1s")
        world.publish("jobs", picture("sky"))
        world.advance("1s")
        printer = world.consumer("prints")
        (sea,) = printer.receive()
        assert json.loads(sea.event.value)["name"] == "sea"
        world.crash()
        world.advance("1m")
        assert printer.receive() == []
        assert printer.acknowledge(sea)
        world.advance("1s")
        (sky,) = printer.receive()
        assert json.loads(sky.event.value)["name"] == "sky"


def test_reminders_come_after_an_hour_and_poison_is_a_dead_letter() -> None:
    with World(app) as world:
        world.publish("jobs", picture("sea"), picture("void", width=0))
        world.advance("59m")
        assert world.published("reminders") == []
        world.advance("2m")
        assert world.values("reminders") == [{"rate": "sea"}]
        assert [letter.attempts for letter in world.dead_letters("pictures.scale")] == [3]
