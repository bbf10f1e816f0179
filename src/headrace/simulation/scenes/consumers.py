"""A function that consumes by itself where a stream's lag is high enough, and fails on the way.

In: a planned consumer. Out: every change that moved its positions with what it appended, and the
streams at the end. Nothing is judged here; `tests/auditor/consumers.py` does.
"""

from __future__ import annotations

from random import Random  # noqa: TID251 - the consumer's own chance, from the seed
from typing import Any

import msgspec

from headrace.model.effects import Change, Space
from headrace.model.event import Event
from headrace.model.triggers.lag import Lag
from headrace.sdk.app import App
from headrace.sdk.consumer import Consumer
from headrace.sdk.context import Context
from headrace.simulation.scenes.base import APP, WINDOW_S, Stage
from headrace.testing.faults import SimulatedHost

STREAM, DONE, NAME = "lag.in", "lag.done", "drain"


class PlannedConsumer(msgspec.Struct, frozen=True, tag="consumer"):
    """A stream, what is published on it, and how a run consumes.

    Attributes:
        thresholds: From which lag how many instances run.
        fetch: How many events it asks for at once.
        commits: How many fetches make a commit; 0 leaves it to the end of the run.
        odds: How likely a run raises after a fetch, while things go wrong.
    """

    partitions: int
    thresholds: dict[int, int]
    fetch: int
    commits: int
    odds: float
    lifespan: float
    sends: tuple[tuple[float, tuple[tuple[int, str], ...]], ...]


def draw_consumer(chance: Random) -> PlannedConsumer:
    """A consumer."""
    keys = [f"c{number}" for number in range(chance.choice((1, 3, 7)))]
    waiting = [(number, chance.choice(keys)) for number in range(chance.choice((8, 20, 60)))]
    sends, at = [], 0.0
    while waiting:
        size = chance.choice((2, 5, 30))
        group, waiting = tuple(waiting[:size]), waiting[size:]
        sends.append((at, group))
        at += chance.choice((0.0, chance.uniform(0.0, 2.0)))
    return PlannedConsumer(
        partitions=chance.choice((1, 2, 4)),
        thresholds=chance.choice(({0: 0, 1: 1}, {0: 0, 1: 1, 10: 3}, {1: 2})),
        fetch=chance.choice((1, 3, 7, 500)),
        commits=chance.choice((0, 1, 1, 2)),
        odds=chance.choice((0.0, 0.1, 0.3)),
        lifespan=chance.choice((0.5, 60.0)),
        sends=tuple(sends),
    )


class Clumsy(Exception):
    """Planned error of a run."""


class ConsumerScene:
    """The consumer, played."""

    kind = "consumer"

    def __init__(self, planned: PlannedConsumer) -> None:
        self.planned = planned
        self.moves: list[list[Any]] = []
        self.published: list[int] = []
        self._calm = False
        self._stage: Stage

    def build(self, app: App, stage: Stage) -> None:
        """Declare stream and function."""
        self._stage = stage
        planned = self.planned
        app.stream(STREAM, partitions=planned.partitions, dedupe_window=WINDOW_S)
        done = app.stream(DONE, partitions=planned.partitions)
        chance = Random(stage.chance.getrandbits(32))

        @app.function(
            Lag(STREAM, thresholds=planned.thresholds, lifespan=planned.lifespan), name=NAME
        )
        async def drain(consumer: Consumer[Any], context: Context) -> None:
            fetched = 0
            while batch := consumer.fetch(planned.fetch):
                for event in batch:
                    context.publish(
                        done, {"n": event.value["n"], "from": event.position}, key=event.key
                    )
                    context.state.update(f"{APP}.{NAME}|{event.key}", lambda n: [*(n or ()), 1])
                fetched += 1
                # Others run meanwhile, and hosts die.
                await stage.clock.sleep(chance.choice((0.0, 0.05, 0.3)))
                if not self._calm and chance.random() < planned.odds:
                    raise Clumsy("on the way")
                if planned.commits and fetched % planned.commits == 0:
                    consumer.commit()

    async def perform(self) -> None:
        """Publish."""
        for at, group in self.planned.sends:
            await self._stage.wait_until(at)
            events = [Event(b'{"n":%d}' % n, key, 0, f"lag{n}") for n, key in group]
            await self._stage.publish(STREAM, events)
            self.published += (number for number, _ in group)

    async def finish(self) -> None:
        """From now on no run raises."""
        self._calm = True
        await self._stage.clock.sleep(60.0)

    def landed(self, host: SimulatedHost, change: Change) -> None:
        """Note every move of a position, and what was appended with it."""
        puts = [(one.key, one.value) for one in change.puts if one.space is Space.POSITIONS]
        appends = [(one.partition, one.body) for one in change.appends if one.stream == DONE]
        if puts or appends:
            self.moves.append([puts, appends])

    def account(self) -> dict[str, Any]:
        """Return the published events, every move of a position, and the final data."""
        lives = self._stage.lives
        return {
            "function": f"{APP}.{NAME}",
            "stream": STREAM,
            "is_idle": min(self.planned.thresholds) > 0 or self.planned.thresholds.get(1, 1) > 0,
            "published": self.published,
            "moves": self.moves,
            "log": lives.log_of(STREAM),
            "done": lives.log_of(DONE),
            "state": lives.rows_of(Space.STATE),
        }
