"""Clients who ask again until they are answered, under seeded faults: each request counts once."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from headrace import App, Context, Event, Http, Unavailable
from headrace.model.event import Event as Fact
from headrace.model.record import decode_events
from headrace.testing.asking import Asking
from headrace.testing.faults import Fault, Weather
from headrace.testing.lives import Lives
from headrace.world.entropy import SeededEntropy

LIMIT_S = 3_600.0
DIES_AT = ("commit:before-write", "commit:after-fsync", "pump:after-invoke", "claim:after-write")
REQUESTS = 12


def desk() -> App:
    """Two counters: one asked at once, one for later; each order is told on a stream."""
    app = App("desk")
    told = app.stream("told", partitions=2)

    @app.function(Http("POST", "/desk/now"), publishes=[told])
    def now(event: Event[int], context: Context) -> int:
        count: int = context.state.update("now", lambda known: known + 1, int, 0)
        context.publish(told, {"now": event.value}, key=str(event.value % 3))
        return count

    @app.function(Http("POST", "/desk/later", mode="async"), publishes=[told], breaker=None)
    def later(event: Event[int], context: Context) -> None:
        context.state.update("later", lambda known: known + 1, int, 0)
        context.publish(told, {"later": event.value}, key=str(event.value % 3))

    return app


@pytest.mark.parametrize("seed", range(20))
def test_each_request_counts_once_however_often_it_is_sent(seed: int) -> None:
    chance = Random(seed)
    odds = {
        Fault.SLOW: 0.2, Fault.CONFLICT: 0.05, Fault.UNKNOWN: 0.1, Fault.REFUSED: 0.05,
        Fault.DIE_BEFORE: 0.05, Fault.DIE_AFTER: 0.05,
    }  # fmt: skip
    lives = Lives(
        [desk()], seed=seed, weather=Weather(SeededEntropy(seed), odds), shuffle=seed % 3 == 0
    )

    async def rooms() -> Any:
        return (await lives.standing()).rooms

    asking = Asking(rooms, lambda work: lives.loop.drive(work, limit=LIMIT_S))
    counts: list[int] = []
    try:
        lives.open()
        for number in range(REQUESTS):
            if chance.random() < 0.3:
                lives.crash_at(chance.choice(DIES_AT), passes=chance.randint(1, 3))
            for path in ("/desk/now", "/desk/later"):
                # Who was answered may send it again all the same: an answer can get lost.
                answers = [_asked(asking, path, number) for _ in range(chance.randint(1, 2))]
                if path == "/desk/now":
                    counts.append(answers[-1])
        lives.calm_down()
        assert lives.loop.run_until_idle(LIMIT_S)
        assert lives.failures == []
        assert counts == list(range(1, REQUESTS + 1)), f"seed {seed}"
        facts: list[Fact] = []
        for _, _, body in lives.log_of("told"):
            facts += decode_events(body)
        for told in (b'{"now":%d}', b'{"later":%d}'):
            for number in range(REQUESTS):
                assert sum(fact.value == told % number for fact in facts) == 1, f"seed {seed}"
    finally:
        lives.close()


def _asked(asking: Asking, path: str, number: int) -> Any:
    """Ask until there is an answer that is no request to try again."""
    for _ in range(200):
        try:
            answer = asking.ask("POST", path, number, {"idempotency_key": f"k{number}"})
        except Unavailable:
            continue
        if answer.status < 300:
            return answer.body
        assert answer.status == 503, answer
    raise AssertionError("it was never answered")
