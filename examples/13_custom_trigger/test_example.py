"""The log grows while the host dies; every line becomes one visit."""

from __future__ import annotations

import function

from headrace.testing import World


def test_every_line_becomes_one_visit() -> None:
    log = function.LOG
    with World(function.app) as world:
        world.advance("2s")
        for number in range(5):
            with log.open("a") as file:
                file.write(f"guest{number} in\nguest{number} out\nhalf a l")
            world.advance("2s")
            world.crash()
            with log.open("a") as file:
                file.write("ine\n")
        world.advance("5s")
        assert len(world.values("visits")) == 15
        world.assert_exactly_once("visits", by=lambda event: event.offset)
        assert world.values("visits")[:3] == [
            {"who": "guest0", "way": "in"},
            {"who": "guest0", "way": "out"},
            {"who": "half", "way": "a line"},
        ]
