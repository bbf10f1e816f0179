"""Two hours of silence and missing payments, in virtual time."""

from __future__ import annotations

from function import app

from headrace.testing import World


def test_what_did_not_happen_is_told_once() -> None:
    with World(app) as world:
        world.publish("orders", {"total": 5}, key="A1")
        world.publish("orders", {"total": 7}, key="A2")
        for _ in range(3):
            world.publish("readings", 21.5, key="cellar")
            world.advance("8m")
        world.crash()
        world.publish("payments", {"paid": 5}, key="A1")
        world.advance("2h")
        assert world.values("alarms") == [
            {"alarm": "silent", "of": "cellar"},
            {"alarm": "unpaid", "of": "A2"},
        ]
