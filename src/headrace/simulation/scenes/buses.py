"""A bus whose rules lead to a function, an archive and an address, and replays of what it held.

In: a planned bus. Out: what was published, answered and replayed, and the streams of its rules.
Nothing is judged here; `tests/auditor/buses.py` does.
"""

from __future__ import annotations

import asyncio
from random import Random  # noqa: TID251 - the bus's own chance, from the seed
from typing import Any, Literal

import msgspec

from headrace.bus.replay import ReplayRow
from headrace.model.effects import Change, Space
from headrace.model.event import Event
from headrace.model.policy import Retry
from headrace.model.triggers.bus import HttpTarget, Rule
from headrace.sdk.app import App
from headrace.sdk.context import Context
from headrace.sdk.event import Event as Seen
from headrace.simulation.scenes.base import AGAIN_S, APP, WINDOW_S, Stage
from headrace.testing.faults import SimulatedHost
from headrace.testing.hosts import HostedNode

BUS = "sim.events"
URL = "https://elsewhere/hook"
Target = Literal["function", "stream", "http"]


class PlannedRule(msgspec.Struct, frozen=True):
    """A rule: which numbers (`least` up to, and without, `below`) or which keys it means."""

    name: str
    target: Target
    least: int
    below: int
    keys: tuple[str, ...]
    partitions: int

    @property
    def pattern(self) -> dict[str, Any]:
        """As an author writes it."""
        found: dict[str, Any] = {
            "detail": {"n": [{"numeric": [">=", self.least, "<", self.below]}]},
        }
        return found | ({"key": list(self.keys)} if self.keys else {})


class PlannedReplay(msgspec.Struct, frozen=True):
    """At a moment, what was published between two others is put to some rules (none: all) again."""

    name: str
    at: float
    begin: float
    end: float
    rules: tuple[str, ...]


class PlannedBus(msgspec.Struct, frozen=True, tag="bus"):
    """A bus, its rules, what is published and replayed, and what the address answers at first."""

    partitions: int
    rules: tuple[PlannedRule, ...]
    sends: tuple[tuple[float, tuple[tuple[int, str], ...]], ...]
    replays: tuple[PlannedReplay, ...]
    answers: tuple[int, ...]
    flaky: frozenset[int]


def draw_bus(chance: Random) -> PlannedBus:
    """A bus."""
    numbers = range(chance.choice((4, 8, 16)))
    keys = ["a", "b", "c"][: chance.choice((1, 2, 3))]
    rules = []
    for place in range(chance.choice((1, 2, 3))):
        least = chance.choice((0, 0, 2))
        rules.append(
            PlannedRule(
                f"r{place}",
                chance.choice(("function", "function", "stream", "http")),
                least,
                chance.choice((4, 100)),
                tuple(chance.sample(keys, 1)) if chance.random() < 0.3 else (),
                chance.choice((1, 2)),
            )
        )
    sends, at, waiting = [], 0.0, [(number, chance.choice(keys)) for number in numbers]
    while waiting:
        size = chance.choice((1, 2, 4))
        group, waiting = tuple(waiting[:size]), waiting[size:]
        sends.append((at, group))
        at += chance.choice((0.0, chance.uniform(0.0, 1.5)))
    replays = []
    for place in range(chance.choice((0, 1, 1, 2))):
        begin = chance.choice((-1.0, chance.uniform(0.0, 3.0)))
        end = begin + chance.uniform(0.1, 5.0)
        named = tuple(rule.name for rule in rules if chance.random() < 0.4)
        moment = max(end, 0.0) + chance.choice((0.0, chance.uniform(0.0, 2.0)))
        replays.append(PlannedReplay(f"again{place}", moment, begin, end, named))
    return PlannedBus(
        partitions=chance.choice((1, 2, 3)),
        rules=tuple(rules),
        sends=tuple(sends),
        replays=tuple(replays),
        answers=tuple(chance.choice((200, 200, 503, 429, 400)) for _ in range(8)),
        flaky=frozenset(number for number in numbers if chance.random() < 0.1),
    )


class BusScene:
    """The bus, played."""

    kind = "bus"

    def __init__(self, planned: PlannedBus) -> None:
        self.planned = planned
        self.published: list[int] = []
        self.replayed: list[list[Any]] = []
        self.routed: list[tuple[int, int]] = []
        self._tries: set[tuple[str, int]] = set()
        self._stage: Stage

    def build(self, app: App, stage: Stage) -> None:
        """Declare bus, rules, functions and archives."""
        self._stage = stage
        app.bus(BUS, self.planned.partitions, dedupe_window=WINDOW_S)
        for rule in self.planned.rules:
            trigger = Rule(rule.pattern, bus=BUS)
            match rule.target:
                case "function":
                    self._listen(app, rule, trigger)
                case "stream":
                    archive = app.stream(f"{rule.name}.archive", partitions=rule.partitions)
                    app.forward(trigger, to=archive, name=rule.name)
                case _:
                    address = HttpTarget(
                        URL, retry=Retry(attempts=3, initial_delay=0.1, max_delay=1.0)
                    )
                    app.forward(trigger, to=address, name=rule.name)

    def _listen(self, app: App, rule: PlannedRule, trigger: Rule) -> None:
        output = app.stream(f"{rule.name}.out", partitions=rule.partitions)

        @app.function(
            trigger, name=rule.name, retry=Retry(attempts=20, initial_delay=0.1, max_delay=0.5)
        )
        def handle(event: Seen[Any], context: Context) -> None:
            number = event.value["n"]
            if number in self.planned.flaky and (rule.name, number) not in self._tries:
                self._tries.add((rule.name, number))
                raise RuntimeError(f"{number} fails once")
            again = (event.headers or {}).get("headrace-replay", "")
            context.publish(output, {"n": number, "replay": again}, key=event.key)

    async def perform(self) -> None:
        """Publish, and replay."""
        self._stage.lives.answers.extend(self.planned.answers)
        await asyncio.gather(self._send(), *(self._replay(each) for each in self.planned.replays))

    async def _send(self) -> None:
        for at, group in self.planned.sends:
            await self._stage.wait_until(at)
            events = [Event(b'{"n":%d}' % n, key, 0, f"bus{n}") for n, key in group]
            await self._stage.publish(BUS, events)
            self.published += (number for number, _ in group)

    async def _replay(self, planned: PlannedReplay) -> None:
        epoch = self._stage.clock.now() - round(self._stage.clock.monotonic() * 1e6)
        await self._stage.wait_until(planned.at)
        begin, end = (epoch + round(at * 1e6) for at in (planned.begin, planned.end))

        async def request(node: HostedNode) -> ReplayRow:
            return await node.services.replays.start(
                planned.name,
                BUS,
                begin=begin,
                end=end,
                rules=[f"{APP}.{rule}" for rule in planned.rules],
            )

        async def look(node: HostedNode) -> ReplayRow:
            return await node.services.replays.get(planned.name)

        asked = self._stage.clock.now()
        # A request with an unknown result is repeated: it is refused if the first one arrived.
        while await self._stage.insist(request) is None and await self._stage.insist(look) is None:
            await self._stage.clock.sleep(AGAIN_S)
        self.replayed.append([planned.name, begin, end, list(planned.rules), asked])

    async def finish(self) -> None:
        """Nothing is left to do."""

    def landed(self, host: SimulatedHost, change: Change) -> None:
        """Nothing is noted: the streams say it all."""

    def account(self) -> dict[str, Any]:
        """Return the published and replayed events, and the events that each rule received."""
        lives = self._stage.lives
        return {
            "published": self.published,
            "replays": self.replayed,
            "rules": [
                {
                    "name": f"{APP}.{rule.name}",
                    "label": rule.name,
                    "least": rule.least,
                    "below": rule.below,
                    "keys": list(rule.keys),
                    "given": lives.log_of(self._given(rule)),
                    "done": lives.log_of(f"{rule.name}.out") if rule.target == "function" else None,
                    "is_posted": rule.target == "http",
                }
                for rule in self.planned.rules
            ],
            "log": lives.log_of(BUS),
            "appended": lives.appended_to(BUS),
            "posted": [
                [post.headers["ce-id"], post.headers.get("headrace-replay", ""), post.body]
                for post in lives.posted
            ],
            "answers": list(self.planned.answers),
            "dead": lives.rows_of(Space.DEAD),
        }

    def _given(self, rule: PlannedRule) -> str:
        """The stream that the rule's events are appended to."""
        match rule.target:
            case "function":
                return f"_{APP}.{rule.name}.rule.0"
            case "stream":
                return f"{rule.name}.archive"
            case _:
                return f"__bus.http.{APP}.{rule.name}.rule.0"
