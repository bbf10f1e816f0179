"""Streams that speak, fall silent and speak late, merged; then the merge is sent back and run again.

In: a planned merge. Out: what each stream holds, and what the merge published in both runs. Nothing
is judged here; `tests/auditor/merges.py` does.
"""

from __future__ import annotations

from random import Random  # noqa: TID251 - the merge's own chance, from the seed
from typing import Any

import msgspec

from headrace.model.effects import Change
from headrace.model.event import Event
from headrace.model.policy import Retry
from headrace.model.record import decode_events
from headrace.sdk.app import App
from headrace.sdk.batch import Batch
from headrace.sdk.context import Context
from headrace.simulation.scenes.base import AGAIN_S, APP, WINDOW_S, Stage
from headrace.testing.faults import SimulatedHost
from headrace.testing.hosts import HostedNode
from headrace.testing.virtual_time import EPOCH

SECOND = 1_000_000
OUTPUT, NAME = "merge.out", "blend"
TIMEOUT_S = 60.0


class PlannedSend(msgspec.Struct, frozen=True):
    """Events of one stream at a moment: number, key, and how many seconds ago it happened."""

    at: float
    stream: str
    events: tuple[tuple[int, str, float], ...]


class PlannedMerge(msgspec.Struct, frozen=True, tag="merge"):
    """The streams, what is published on them, and how they are read."""

    partitions: int
    streams: tuple[str, ...]
    lateness: float
    batch_size: int
    batch_window: float
    sends: tuple[PlannedSend, ...]


def draw_merge(chance: Random) -> PlannedMerge:
    """A merge."""
    streams = tuple(f"merge.in{number}" for number in range(chance.choice((2, 2, 3))))
    sends: list[PlannedSend] = []
    at, number = 0.0, 0
    for _ in range(chance.choice((6, 15, 30))):
        events = []
        for _ in range(chance.choice((1, 1, 2, 5))):
            events.append((number, f"m{number % 4}", chance.choice((0.0, 0.0, 0.1, 1.0, 4.0))))
            number += 1
        sends.append(PlannedSend(at, chance.choice(streams), tuple(events)))
        at += chance.choice((0.0, 0.0, 0.1, 0.4, 1.0))
    return PlannedMerge(
        partitions=chance.choice((1, 1, 2)),
        streams=streams,
        lateness=chance.choice((0.0, 0.2, 0.5)),
        batch_size=chance.choice((1, 3, 10)),
        batch_window=chance.choice((0.0, 0.0, 0.2)),
        sends=tuple(sends),
    )


class MergeScene:
    """The merge, played."""

    kind = "merge"

    def __init__(self, planned: PlannedMerge) -> None:
        self.planned = planned
        self.published: list[int] = []
        self._is_sent_back = False
        self._stage: Stage

    def build(self, app: App, stage: Stage) -> None:
        """Declare streams and function."""
        self._stage = stage
        planned = self.planned
        sources = [
            app.stream(name, partitions=planned.partitions, dedupe_window=WINDOW_S)
            for name in planned.streams
        ]
        output = app.stream(OUTPUT, partitions=planned.partitions)

        @app.function(
            *sources,
            name=NAME,
            merge="time",
            idle_timeout=planned.lateness,
            batch_size=planned.batch_size,
            batch_window=planned.batch_window,
            breaker=None,
            retry=Retry(attempts=1_000, initial_delay=0.05, max_delay=0.2),
        )
        def blend(events: Batch[Any], context: Context) -> None:
            for event in events:
                value = {"n": event.value["n"], "from": event.position}
                context.publish(output, value, key=event.key)

    async def perform(self) -> None:
        """Publish; once all of it has been merged, send the merge back."""
        stage = self._stage
        for send in self.planned.sends:
            await stage.wait_until(send.at)
            # In virtual seconds, so that a wall clock that is set changes nothing.
            now = EPOCH + int(send.at * SECOND)
            events = [
                Event(b'{"n":%d}' % n, key, now - int(ago * SECOND), f"merge{n}")
                for n, key, ago in send.events
            ]
            await stage.publish(send.stream, events)
            self.published += (number for number, _, _ in send.events)
        await self._send_back()
        await stage.clock.sleep(2.0)

    async def finish(self) -> None:
        """Send it back now, where faults had kept the first run from its end."""
        await self._send_back()
        await self._stage.clock.sleep(TIMEOUT_S)

    async def _send_back(self) -> None:
        end = self._stage.clock.monotonic() + TIMEOUT_S
        while not self._is_sent_back and self._stage.clock.monotonic() < end:
            if self._published_count() < len(self.published):
                await self._stage.clock.sleep(AGAIN_S)
                continue
            self._is_sent_back = await self._stage.insist(self._sent_back_by) or False

    async def _sent_back_by(self, node: HostedNode) -> bool:
        await node.supervisor.reset(f"{APP}.{NAME}", "earliest")
        # Where another host has taken over meanwhile, one that owns nothing any more has answered: the
        # owner reads on from where it stood, so it is asked too.
        return node is self._stage.lives.node

    def _published_count(self) -> int:
        blobs = self._stage.lives.log_of(OUTPUT)
        return sum(len(decode_events(body)) for _, _, body in blobs)

    def landed(self, host: SimulatedHost, change: Change) -> None:
        """Nothing is noted on the way."""

    def account(self) -> dict[str, Any]:
        """Return the published events, and the final data."""
        lives = self._stage.lives
        return {
            "published": self.published,
            "logs": {name: lives.log_of(name) for name in self.planned.streams},
            "merged": lives.log_of(OUTPUT),
        }
