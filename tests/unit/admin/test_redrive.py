"""What is redriven spends its attempts durably: a host that dies does not begin them anew."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from headrace import App, Context, DeadLetter, Event, ParkKey, Retry
from headrace.environment.failpoints import LABELS
from headrace.testing import World

RETRY = Retry(attempts=3, initial_delay=60.0, max_delay=60.0, jitter=False)


class Trial:
    """A world in which an event fails whenever it is run, and when it was, by attempt."""

    def __init__(self, on_failure: DeadLetter | ParkKey) -> None:
        self.seen: list[tuple[int, float]] = []
        app = App("app")

        @app.function(app.stream("in"), retry=RETRY, on_failure=on_failure)
        def fail(event: Event[Any], context: Context) -> None:
            if event.value == "bad":
                self.seen.append((context.attempt, self.world.now.timestamp()))
                raise ValueError

        self.world = World(app)

    @property
    def attempts(self) -> list[int]:
        return [attempt for attempt, _ in self.seen]

    def give_up(self) -> None:
        """Let it be tried until it is given up."""
        self.world.publish("in", "bad", key="k")
        self.world.advance("5m")
        assert self.attempts == [1, 2, 3]
        self.seen.clear()


@pytest.fixture(params=[DeadLetter(), ParkKey()], ids=["dead", "parked"])
def trial(request: pytest.FixtureRequest) -> Iterator[Trial]:
    found = Trial(request.param)
    with found.world:
        found.give_up()
        yield found


def test_attempts_at_what_is_redriven_go_on_counting_in_the_next_host(trial: Trial) -> None:
    trial.world.redrive("app.fail")
    for _ in range(6):
        trial.world.advance("25s")
        trial.world.crash()
    trial.world.advance("5m")
    assert trial.attempts == [1, 2, 3]
    # Each waits its time, whoever lives meanwhile.
    pauses = [later - sooner for (_, sooner), (_, later) in pairwise(trial.seen)]
    assert pauses == pytest.approx([60, 60], abs=2)


@pytest.mark.parametrize(
    "label", [one for one in LABELS if one.startswith(("commit", "pump", "claim"))]
)
def test_a_host_that_dies_between_two_steps_of_a_redrive_gives_no_attempt_back(
    label: str, trial: Trial
) -> None:
    trial.world.publish("in", "good", key="k")
    trial.world.redrive("app.fail")
    trial.world.crash(label, 2)
    trial.world.advance("10m")
    # One may be run twice: the one whose end the host did not live to write down.
    assert set(trial.attempts) == {1, 2, 3}
    assert trial.attempts == sorted(trial.attempts)
    assert len(trial.attempts) <= 4


def test_a_second_redrive_begins_with_the_first_attempt(trial: Trial) -> None:
    for _ in range(2):
        trial.seen.clear()
        trial.world.redrive("app.fail")
        trial.world.advance("5m")
        assert trial.attempts == [1, 2, 3]


def test_a_redrive_that_is_asked_for_while_one_goes_on_begins_with_the_first_attempt(
    trial: Trial,
) -> None:
    trial.world.redrive("app.fail")
    trial.world.advance("5s")
    assert trial.attempts == [1]
    assert trial.world.redrive("app.fail") in {0, 1}
    trial.world.advance("5m")
    assert trial.attempts[-1] == 3
    assert len(trial.attempts) <= 4
