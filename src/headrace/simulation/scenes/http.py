"""Routes that clients call over HTTP: synchronous, deferred and live; clients repeat until answered.

In: planned requests. Out: the answer to each, and the events that the handlers published. Nothing is
judged here; `tests/auditor/desks.py` does.
"""

from __future__ import annotations

import asyncio
from random import Random  # noqa: TID251 - the desk's own chance, from the seed
from typing import Any, Literal

import msgspec

from headrace.model.effects import Change
from headrace.model.errors import Unavailable
from headrace.model.policy import Retry
from headrace.model.triggers.http import Http
from headrace.sdk.app import App
from headrace.sdk.context import Context
from headrace.sdk.event import Event as Seen
from headrace.simulation.scenes.base import AGAIN_S, APP, Stage
from headrace.testing.faults import SimulatedHost
from headrace.testing.http_client import HttpClient

SERVED = "desk.told"
TRIES = 2_000
Place = Literal["now", "later", "live"]


class PlannedRequest(msgspec.Struct, frozen=True):
    """One request.

    Attributes:
        at: When it is first sent.
        copies: How many clients send it, at much the same time.
        is_keyed: Whether it has an idempotency key; else it is sent once, whatever comes of it.
        other: Whether a client sends another request under its key, later.
    """

    at: float
    number: int
    place: Place
    copies: int
    is_keyed: bool
    other: bool


class PlannedHttpClient(msgspec.Struct, frozen=True, tag="desk"):
    """Requests, and how many orders share a counter: the fewer counters, the more conflicts."""

    requests: tuple[PlannedRequest, ...]
    counters: int
    slow: float


def draw_desk(chance: Random) -> PlannedHttpClient:
    """Some requests."""
    found, at = [], 0.0
    for number in range(chance.choice((4, 10, 24))):
        is_keyed = chance.random() < 0.8
        found.append(
            PlannedRequest(
                at=at,
                number=number,
                place=chance.choice(("now", "now", "later", "live")),
                copies=chance.choice((1, 1, 2, 3)) if is_keyed else 1,
                is_keyed=is_keyed,
                other=is_keyed and chance.random() < 0.2,
            )
        )
        at += chance.choice((0.0, 0.0, chance.uniform(0.0, 1.0)))
    return PlannedHttpClient(
        tuple(found), counters=chance.choice((1, 2, 5)), slow=chance.choice((0.0, 0.2))
    )


class HttpScene:
    """The desk, played."""

    kind = "desk"

    def __init__(self, planned: PlannedHttpClient) -> None:
        self.planned = planned
        self.answers: list[list[Any]] = []
        self._http_client = HttpClient()
        self._stage: Stage

    def build(self, app: App, stage: Stage) -> None:
        """Declare the routes."""
        self._stage = stage
        output = app.stream(SERVED, partitions=2)
        desk = app.store("desk", list[int], default=[])
        planned = self.planned

        def serve(event: Seen[Any], context: Context) -> int:
            number = event.value
            counter = str(number % planned.counters)
            served = context.store(desk).update(counter, lambda known: [*known, number])
            context.publish(output, {"n": number, "count": len(served)}, key=counter)
            return len(served)

        @app.function(Http("POST", "/desk/now"), publishes=[output], name="desk_now")
        async def now(event: Seen[int], context: Context) -> int:
            await stage.clock.sleep(planned.slow * stage.chance.random())
            return serve(event, context)

        @app.function(Http("POST", "/desk/live", mode="live"), publishes=[output], name="desk_live")
        async def live(event: Seen[int], context: Context) -> Any:
            yield "started"
            await stage.clock.sleep(planned.slow * stage.chance.random())
            yield serve(event, context)

        @app.function(
            Http("POST", "/desk/later", mode="async"),
            publishes=[output],
            name="desk_later",
            retry=Retry(attempts=50, initial_delay=0.1, max_delay=0.5),
            breaker=None,
        )
        def later(event: Seen[int], context: Context) -> None:
            serve(event, context)

    async def perform(self) -> None:
        """Let all clients send their requests."""
        clients = []
        for each in self.planned.requests:
            clients += [self._client(each, each.number) for _ in range(each.copies)]
            if each.other:
                clients.append(self._client(each, each.number + 1_000))
        await asyncio.gather(*clients)

    async def _client(self, request: PlannedRequest, number: int) -> None:
        """Ask until there is an answer; once, where there is no key to ask again under."""
        stage = self._stage
        is_other = number != request.number
        await stage.wait_until(request.at + (2.0 if is_other else stage.chance.random() * 0.1))
        headers = {"idempotency_key": f"k{request.number}"} if request.is_keyed else {}
        for _ in range(TRIES):
            try:
                answer = await stage.ask(
                    lambda node: self._http_client.answer(
                        node.services, "POST", f"/desk/{request.place}", number, headers
                    )
                )
            except Unavailable:
                status, body = 0, None
            else:
                status = answer.status
                body = answer.body.decode() if isinstance(answer.body, bytes) else answer.body
            if request.is_keyed and (status in {0, 409} or status >= 500):
                await stage.clock.sleep(AGAIN_S)
                continue
            shown = body if status == 200 else None
            self.answers.append([request.number, is_other, status, shown])
            return

    async def finish(self) -> None:
        """Let what was kept be done."""
        await self._stage.clock.sleep(10.0)

    def landed(self, host: SimulatedHost, change: Change) -> None:
        """Nothing is noted: answers and streams say it all."""

    def account(self) -> dict[str, Any]:
        """Return the requests, every answer, and the events that the handlers published."""
        return {
            "requests": [msgspec.to_builtins(each) for each in self.planned.requests],
            "answers": self.answers,
            "told": self._stage.lives.log_of(SERVED),
            "app": APP,
        }
