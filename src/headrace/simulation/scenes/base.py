"""Common parts of all scenes: a producer that repeats until acknowledged, and a client of the running host.

In: the hosts that come and go, and a chance of the scene's own. Out: answers, or `Unavailable`
where a host died during the request and its result is unknown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from random import Random  # noqa: TID251 - the scene's own chance, from the seed
from typing import Any, Protocol, TypeVar

from headrace.environment.clock import Clock
from headrace.model.effects import Change
from headrace.model.errors import Fenced, HeadraceError, Unavailable
from headrace.model.event import Event
from headrace.sdk.app import App
from headrace.testing.faults import HostDied, SimulatedHost, inhabited
from headrace.testing.hosts import HostedNode, Hosts

T = TypeVar("T")

APP = "sim"
WINDOW_S = 86_400.0 * 365
AGAIN_S = 0.1


class Scene(Protocol):
    """Something that is played in addition to the functions, and gives its own account.

    Attributes:
        kind: Where its account stands among the others.
    """

    kind: str

    def build(self, app: App, stage: Stage) -> None:
        """Declare what it needs."""
        ...

    async def perform(self) -> None:
        """Do what people outside do, while things go wrong. It ends by itself."""
        ...

    async def finish(self) -> None:
        """Do what people outside must do for everything to come to rest, once nothing goes wrong."""
        ...

    def landed(self, host: SimulatedHost, change: Change) -> None:
        """A change has landed."""
        ...

    def account(self) -> dict[str, Any]:
        """Return the actions, observations and final data, as plain values."""
        ...


class Stage:
    """Owned by one run; every scene has its own.

    Attributes:
        calm: Whether only planned faults happen.
        is_skewed: Whether the wall clock is set, by a day at most.
        may_conflict: Whether the storage may report a conflict without one.
    """

    lives: Hosts
    clock: Clock

    def __init__(self, chance: Random, *, calm: bool, may_conflict: bool, is_skewed: bool) -> None:
        self.chance = chance
        self.calm = calm
        self.may_conflict = may_conflict
        self.is_skewed = is_skewed

    def enter(self, lives: Hosts) -> None:
        """These are the hosts it is played on."""
        self.lives = lives
        self.clock = lives.clock

    async def wait_until(self, moment: float) -> None:
        """Wait for a virtual second."""
        left = moment - self.clock.monotonic()
        if left > 0:
            await self.clock.sleep(left)

    async def publish(self, stream: str, events: Sequence[Event]) -> None:
        """As a careful producer does: with ids, again until it is answered."""
        while True:
            try:
                await self.lives.publish(stream, events)
            except Unavailable:
                await self.clock.sleep(AGAIN_S)
                continue
            return

    async def ask(self, request: Callable[[HostedNode], Coroutine[Any, Any, T]]) -> T:
        """Return the answer of the running host.

        Raises:
            Unavailable: It died, or its store was away: whether it happened is unknown.
        """
        node = await self.lives.current()
        asked = self.lives.loop.create_task(_inside(node, request), name="ask")
        node.host.adopt(asked)
        await asyncio.wait((asked,))
        if asked.cancelled():
            raise Unavailable("the host died before it answered")
        error = asked.exception()
        if isinstance(error, HostDied):
            raise Unavailable("the host died before it answered") from error
        return asked.result()

    async def insist(self, request: Callable[[HostedNode], Coroutine[Any, Any, T]]) -> T | None:
        """Repeat the request until there is an answer, and return it; None if the request is refused."""
        while True:
            try:
                return await self.ask(request)
            except (Fenced, Unavailable):
                # Another owner had claimed the partition, or the result is unknown: try again.
                await self.clock.sleep(AGAIN_S)
            except HeadraceError:
                return None


async def _inside(node: HostedNode, request: Callable[[HostedNode], Coroutine[Any, Any, T]]) -> T:
    inhabited.set(node.host)
    return await request(node)
