"""Windows that are told when they close, some of which cannot be told for a while, or until somebody mends it.

In some plans a quiet stream closes them, or an operator does; in the others events alone do.

In: planned windows. Out: what was published, what was given up as it landed, what was told and what was
late. Nothing is judged here; `tests/auditor/windows.py` does.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from random import Random  # noqa: TID251 - the windows' own chance, from the seed
from typing import Any

import msgspec

from headrace.admin.dead_letters import DeadLetters
from headrace.admin.parked_keys import ParkedKeys
from headrace.model.effects import Change, Space
from headrace.model.event import Event
from headrace.model.policy import DeadLetter, ParkKey, Retry
from headrace.sdk.app import App
from headrace.sdk.event import Event as Seen
from headrace.sdk.windows import ClosedWindow, TumblingWindow
from headrace.simulation.scenes.base import APP, WINDOW_S, Stage
from headrace.testing.faults import SimulatedHost
from headrace.testing.hosts import HostedNode
from headrace.testing.virtual_time import EPOCH

SECOND = 1_000_000
SOURCE, CLOSED, LATE, NAME = "fold.in", "fold.told", "fold.late", "fold"
ATTEMPTS = 3
FOR_GOOD = 1_000
"""Number of failures of a `close` that succeeds only after a repair of the handler."""
END_S = 1e6
TIMEOUT_S = 30.0

PlannedReading = tuple[int, str, float]
"""Number, key, and when it happened: seconds since the beginning."""


class PlannedWindows(msgspec.Struct, frozen=True, tag="windows"):
    """Windows of a second, the events in them, and the windows whose `close` fails.

    Attributes:
        lateness: Seconds by which events come out of order.
        sends: Moments, with what is sent then.
        fails: How often the close of a window fails, by `KEY/SECOND`.
        parks: Whether what fails parks its key; else it is a dead letter.
        redrive: When an operator redrives the dead letters, repaired or not; 0 is never.
        idle: Seconds without an event after which what is open closes; 0 is never.
        flushes: When an operator closes what is open, and of which key; "" is of all of them.
    """

    partitions: int
    lateness: float
    batch_size: int
    sends: tuple[tuple[float, tuple[PlannedReading, ...]], ...]
    fails: dict[str, int]
    parks: bool
    redrive: float
    idle: float = 0.0
    flushes: tuple[tuple[float, str], ...] = ()

    @property
    def closes_early(self) -> bool:
        """Return whether windows close that no event has closed, so that others come too late for them."""
        return bool(self.idle or self.flushes)


def draw_windows(chance: Random) -> PlannedWindows:
    """Windows."""
    keys = [f"w{number}" for number in range(chance.choice((1, 2, 3)))]
    lateness = chance.choice((0.0, 0.0, 0.5))
    sends, at, moment, number = [], 0.0, 0.0, 0
    for _ in range(chance.choice((4, 8, 16))):
        group: list[PlannedReading] = []
        for _ in range(chance.choice((1, 2, 5))):
            late = chance.uniform(0.0, lateness)
            group.append((number, chance.choice(keys), round(moment + lateness - late, 3)))
            moment += chance.choice((0.0, 0.1, 0.4, 1.5))
            number += 1
        sends.append((at, tuple(group)))
        at += chance.choice((0.0, 0.1, 0.5))
    names = sorted({f"{key}/{int(when)}" for _, group in sends for _, key, when in group})
    often = (1, 2, ATTEMPTS, FOR_GOOD, FOR_GOOD)
    return PlannedWindows(
        partitions=chance.choice((1, 1, 2)),
        lateness=lateness,
        batch_size=chance.choice((1, 3, 100)),
        sends=tuple(sends),
        fails={name: chance.choice(often) for name in names if chance.random() < 0.3},
        parks=chance.random() < 0.5,
        redrive=chance.choice((0.0, chance.uniform(0.5, 5.0))),
    )


def closed_early(planned: PlannedWindows, chance: Random) -> PlannedWindows:
    """The same windows, but closed by silence or by hand as well, with events about when they close."""
    keys = sorted({key for _, group in planned.sends for _, key, _ in group})
    idle = chance.choice((0.0, 0.2, 0.45, 2.0))
    flushes = [
        (chance.uniform(0.0, 4.0), chance.choice(("", *keys)))
        for _ in range(chance.choice((0, 0, 1, 3) if idle else (1, 3)))
    ]
    sends = [*planned.sends]
    number = sum(len(group) for _, group in sends)
    for _ in range(chance.choice((2, 5, 10))):
        at, group = chance.choice(planned.sends)
        _, key, when = chance.choice(group)
        later = (idle or 0.5) * chance.choice((0.5, 0.9, 1.0, 1.05, 1.5))
        sends.append((at + later, ((number, key, when),)))
        number += 1
    return msgspec.structs.replace(
        planned,
        sends=tuple(sorted(sends)),
        idle=idle,
        flushes=tuple(sorted(flushes)),
    )


class CloseFailed(Exception):
    """Planned error of a `close`."""


class WindowScene:
    """The windows, played."""

    kind = "windows"

    def __init__(self, planned: PlannedWindows) -> None:
        self.planned = planned
        self.published: list[int] = []
        self.given_up: list[tuple[bytes, bytes]] = []
        self._tries: Counter[str] = Counter()
        self._is_mended = False
        self._stage: Stage

    def build(self, app: App, stage: Stage) -> None:
        """Declare streams and windows."""
        self._stage = stage
        planned = self.planned
        source = app.stream(SOURCE, partitions=planned.partitions, dedupe_window=WINDOW_S)
        output = app.stream(CLOSED, partitions=planned.partitions)
        late = app.stream(LATE, partitions=planned.partitions) if planned.closes_early else None

        def close(window: ClosedWindow) -> Any:
            start = round(window.start.timestamp()) - EPOCH // SECOND
            name = f"{window.key}/{start}"
            self._tries[name] += 1
            if not self._is_mended and self._tries[name] <= planned.fails.get(name, 0):
                raise CloseFailed(name)
            return {"window": name, "numbers": window.value}

        @app.window(
            source,
            TumblingWindow(1),
            output=output,
            close=close,
            lateness=planned.lateness,
            idle=planned.idle or None,
            late=late,
            name=NAME,
            batch_size=planned.batch_size,
            breaker=None,
            retry=Retry(attempts=ATTEMPTS, initial_delay=0.05, max_delay=0.2),
            on_failure=ParkKey() if planned.parks else DeadLetter(),
        )
        def fold(held: list[int] | None, event: Seen[Any]) -> list[int]:
            return [*(held or ()), event.value["n"]]

    async def perform(self) -> None:
        """Publish; an operator redrives what was given up, perhaps in vain, and closes windows."""
        await asyncio.gather(self._publish(), self._operate(), self._flush())

    async def _publish(self) -> None:
        for at, group in self.planned.sends:
            await self._stage.wait_until(at)
            await self._bring(group)
            self.published += (number for number, _, _ in group)

    async def _bring(self, group: tuple[PlannedReading, ...]) -> None:
        events = [
            Event(b'{"n":%d}' % n, key, EPOCH + round(when * SECOND), f"fold{n}{key}")
            for n, key, when in group
        ]
        await self._stage.publish(SOURCE, events)

    async def _operate(self) -> None:
        if self.planned.redrive:
            await self._stage.wait_until(self.planned.redrive)
            await self._stage.insist(self._redriven_by)

    async def _flush(self) -> None:
        for at, key in self.planned.flushes:
            await self._stage.wait_until(at)
            await self._stage.insist(partial(_flushed_by, key=key))

    async def finish(self) -> None:
        """Close open windows; from now on every `close` succeeds, and dead letters are redriven."""
        if not self.planned.closes_early:
            keys = sorted({key for _, group in self.planned.sends for _, key, _ in group})
            await self._bring(tuple((-1, key, END_S) for key in keys))
        elif not self.planned.idle:
            # What came before is folded before the windows are closed by hand.
            await self._stage.clock.sleep(TIMEOUT_S)
            await self._stage.insist(partial(_flushed_by, key=""))
        await self._stage.clock.sleep(TIMEOUT_S)
        self._is_mended = True
        await self._stage.insist(self._redriven_by)
        await self._stage.clock.sleep(TIMEOUT_S)

    async def _redriven_by(self, node: HostedNode) -> bool:
        name, clock = f"{APP}.{NAME}", self._stage.clock
        await DeadLetters(node.host_storage, node.supervisor, clock).redrive(name)
        await ParkedKeys(node.host_storage, node.supervisor, clock).redrive(name)
        return True

    # --- what is seen -----------------------------------------------------------------------

    def landed(self, host: SimulatedHost, change: Change) -> None:
        """Note what is given up."""
        self.given_up += (
            (put.key, put.value)
            for put in change.puts
            if put.space in {Space.DEAD, Space.PARKED} and put.key.startswith(_OURS)
        )

    def account(self) -> dict[str, Any]:
        """Return the published events, the dead letters and the closed windows."""
        lives = self._stage.lives
        return {
            "function": f"{APP}.{NAME}",
            "source": SOURCE,
            "began": EPOCH,
            "attempts": ATTEMPTS,
            "fails": self.planned.fails,
            "published": self.published,
            "log": lives.log_of(SOURCE),
            "told": lives.log_of(CLOSED),
            "late": lives.log_of(LATE) if self.planned.closes_early else [],
            "appended": lives.appended_to(SOURCE),
            "lateness": round(self.planned.lateness * SECOND),
            "idle": round(self.planned.idle * SECOND),
            "flushed": [key for _, key in self.planned.flushes],
            "given_up": self.given_up,
            "left": [
                key
                for space in (Space.DEAD, Space.PARKED)
                for key, _ in lives.rows_of(space)
                if key.startswith(_OURS)
            ],
        }


async def _flushed_by(node: HostedNode, *, key: str) -> bool:
    windows = node.services.windows
    await windows.flush(f"{APP}.{NAME}", key=key or msgspec.UNSET)
    return True


_OURS = f"{APP}.{NAME}\0".encode()
