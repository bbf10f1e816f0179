"""The desk on virtual time: who hears of what, also when the host dies and when a day is replayed."""

from __future__ import annotations

import json
import pathlib
import sys
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent))
sys.modules.pop("function", None)
import function as desk  # noqa: E402

from headrace.testing import World  # noqa: E402


def placed(number: int, total: float, **more: Any) -> dict[str, Any]:
    detail = {"id": number, "total": total, "customer": f"c{number}", **more}
    return {"source": "shop.checkout", "detail-type": "Order Placed", "detail": detail}


def test_each_rule_hears_of_what_it_is_about() -> None:
    with World(desk.app) as world:
        world.publish("shop.events", placed(1, 900), placed(2, 20), placed(3, 30, state="refused"))
        world.publish("shop.events", {"source": "else.where", "detail-type": "x", "detail": {}})
        world.run_until_idle()
        assert world.values("tickets") == [{"call": "c1", "about": 1}]
        assert world.values("fraud") == [{"id": 3, "from": "shop.checkout"}]
        assert [one["detail"]["id"] for one in world.values("shop.archive")] == [1, 2, 3]
        (told,) = world.posted
        assert json.loads(told.body) == {"text": "Order 1 over 900 euro", "order": 1}


def test_a_host_that_dies_keeps_every_rule_exact() -> None:
    with World(desk.app, seed=5) as world:
        for number in range(20):
            world.publish("shop.events", placed(number, 500 + number))
            if number % 6 == 5:
                world.crash()
        world.run_until_idle()
        assert sorted(one["about"] for one in world.values("tickets")) == list(range(20))
        assert len(world.values("shop.archive")) == 20


def test_a_replay_hands_the_past_to_one_rule_only() -> None:
    with World(desk.app) as world:
        world.publish("shop.events", placed(1, 900), placed(2, 700))
        world.run_until_idle()
        world.bus_replay("shop.events", "desk.greet", name="tuesday")
        world.run_until_idle()
        assert [one["about"] for one in world.values("tickets")] == [1, 2, 1, 2]
        assert len(world.values("shop.archive")) == len(world.posted) == 2
