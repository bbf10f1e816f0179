"""A merge run twice over the same logs, under seeded faults: the same order, windows included."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import pytest

from headrace import App, Batch, Context, Event, Failures, Retry
from headrace.environment.randomness import SeededEntropy
from headrace.model.effects import Space
from headrace.model.errors import Unavailable
from headrace.model.event import Event as Fact
from headrace.model.record import decode_events
from headrace.testing.faults import Fault, Weather
from headrace.testing.hosts import Hosts
from headrace.testing.virtual_time import EPOCH
from headrace.windows import TumblingWindow

SECOND = 1_000_000
LIMIT_S = 86_400.0
DIES_AT = (
    "pump:after-read",
    "pump:before-invoke",
    "pump:after-invoke",
    "pump:after-commit",
    "commit:before-write",
    "commit:after-fsync",
    "claim:before-write",
    "claim:after-write",
)


class Story:
    """An app with two runs of one merge, and what befalls it. The seed says all of it."""

    def __init__(self, seed: int) -> None:
        self.chance = chance = Random(seed)
        self.run = 0
        self.flaky = {n for n in range(60) if chance.random() < chance.choice((0.0, 0.1))}
        self._tries: dict[tuple[int, int], int] = {}
        self.app = self._app()
        odds = {Fault.SLOW: 0.2, Fault.CONFLICT: 0.05, Fault.UNKNOWN: 0.05, Fault.DIE_BEFORE: 0.02}
        self.lives = Hosts(
            [self.app],
            seed=seed,
            weather=Weather(SeededEntropy(seed), odds if chance.random() < 0.7 else {}),
            shuffle=chance.random() < 0.3,
        )

    def _app(self) -> App:
        chance, app = self.chance, App("sim")
        count = chance.choice((1, 2))
        self.sources = [f"in{n}" for n in range(chance.choice((2, 2, 3)))]
        sources = [app.stream(name, partitions=count) for name in self.sources]
        merged = [app.stream(f"merged{run}", partitions=count) for run in range(2)]
        sums = [app.stream(f"sums{run}", partitions=count) for run in range(2)]
        late = [app.stream(f"late{run}", partitions=count) for run in range(2)]
        by_name = chance.random() < 0.5

        @app.function(
            *sources,
            merge="time",
            idle_timeout=0.5,
            batch_size=chance.choice((1, 3, 10)),
            batch_window=chance.choice((0.0, 0.2)),
            retry=Retry(attempts=9, initial_delay=0.1, max_delay=0.5),
            breaker=None,
        )
        def join(events: Batch[Any], context: Context) -> Failures:
            bad: list[Event[Any]] = []
            for event in events:
                number = event.value["n"]
                if self._fails(number):
                    if not by_name:
                        raise ValueError(f"{number} is flaky")
                    bad.append(event)
                    continue
                context.publish(merged[self.run], event.value, key=event.key, time=event.timestamp)
            return Failures(bad)

        for run in range(2):

            @app.window(
                merged[run], TumblingWindow(4), output=sums[run], late=late[run], name=f"sum{run}"
            )
            def total(so_far: list[int] | None, event: Event[Any]) -> list[int]:
                return [*(so_far or []), event.value["n"]]

        self.is_by_name = by_name
        return app

    def _fails(self, number: int) -> bool:
        if number not in self.flaky:
            return False
        tries = self._tries[self.run, number] = self._tries.get((self.run, number), 0) + 1
        return tries < 3

    async def perform(self, *, publishing: bool) -> None:
        """Half a minute in which streams speak, fall silent and speak late, and hosts die."""
        chance, lives = self.chance, self.lives
        numbers = iter(range(60) if publishing else ())
        for _ in range(24):
            await lives.clock.sleep(chance.choice((0.0, 0.1, 0.3, 0.8, 2.0)))
            if chance.random() < 0.08:
                await lives.current()
                lives.crash()
            if chance.random() < 0.08:
                lives.crash_at(chance.choice(DIES_AT), chance.randint(1, 3))
            source = chance.choice(self.sources)
            for _ in range(chance.choice((0, 1, 2, 5))):
                if (number := next(numbers, None)) is None:
                    break
                await self._publish(source, number)
        for number in numbers:
            await self._publish(chance.choice(self.sources), number)

    async def _publish(self, stream: str, number: int) -> None:
        chance, lives = self.chance, self.lives
        # Mostly what has just happened; some of it long ago.
        ago = chance.choice((0.0, 0.0, 0.1, 1.5, 6.0))
        time = EPOCH + int((lives.clock.monotonic() - ago) * SECOND)
        fact = Fact(b'{"n":%d}' % number, f"k{number % 3}", time, f"id{number}")
        while True:
            try:
                await lives.publish(stream, [fact])
            except Unavailable:
                await lives.clock.sleep(0.1)
                continue
            return

    def play(self) -> None:
        """The first run, the reset, the second run."""
        lives = self.lives
        lives.open()
        odds = dict(lives.weather.odds)
        for run in range(2):
            self.run = run
            lives.is_calm, lives.weather.odds = False, dict(odds)
            lives.loop.drive(self.perform(publishing=run == 0), limit=LIMIT_S)
            lives.calm_down()
            if not run:
                assert lives.loop.run_until_idle(LIMIT_S)
                self.run = 1
                lives.loop.drive(lives.node.supervisor.reset("sim.join", "earliest"))
        assert lives.loop.run_until_idle(LIMIT_S)
        assert lives.failures == []

    def told(self, stream: str) -> list[list[Any]]:
        """What a stream holds, by partition."""
        found: list[list[Any]] = [[] for _ in range(self.lives.broker.stream(stream).partitions)]
        for partition, _, body in self.lives.log_of(stream):
            found[partition] += (msgspec.json.decode(event.value) for event in decode_events(body))
        return found

    def steady(self, run: int) -> list[list[int]]:
        """The order of a run, without what was done again by itself."""
        leave_out = self.flaky if self.is_by_name else set[int]()
        return [
            [event["n"] for event in events if event["n"] not in leave_out]
            for events in self.told(f"merged{run}")
        ]


def played(seed: int) -> Story:
    story = Story(seed)
    try:
        story.play()
    except BaseException:
        story.lives.close()
        raise
    return story


@pytest.mark.parametrize("seed", range(24))
def test_a_second_run_takes_the_order_of_the_first(seed: int) -> None:
    story = played(seed)
    try:
        first, second = story.steady(0), story.steady(1)
        assert sorted(n for events in first for n in events)
        assert first == second
        if not (story.is_by_name and story.flaky):
            assert story.told("sums0") == story.told("sums1")
            assert story.told("late0") == story.told("late1")
    finally:
        story.lives.close()


def test_the_seeds_pass_streams_over_and_break_off_halfway() -> None:
    kept = deaths = late = 0
    for seed in range(24):
        story = played(seed)
        kept += sum(key.startswith(b"merge") for key, _ in story.lives.rows_of(Space.META))
        deaths += len(story.lives.deaths)
        late += sum(len(events) for events in story.told("late0"))
        story.lives.close()
    assert kept > 24
    assert deaths > 24
    assert late > 24
