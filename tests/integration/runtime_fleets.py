"""A real fleet for the tests of this folder, and what must be true once it is closed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from textwrap import dedent

from headrace.environment.clock import SystemClock
from headrace.environment.randomness import SystemEntropy
from headrace.environment.tasks import Tasks
from headrace.model.errors import Unavailable
from headrace.model.event import Event
from headrace.model.invocation import BatchInvocation
from headrace.model.outcome import Outcome, Range, Scanned
from headrace.model.policy import FleetLimits
from headrace.model.record import Chunk, encode_events
from headrace.model.stores import StoreAddress
from headrace.runtime.base import invoke
from headrace.runtime.fleet import Fleet
from headrace.runtime.host_services import HostServices, state_questions
from headrace.runtime.process.fleet_host import FleetHost
from headrace.runtime.process.instance_logs import InstanceLine

CLOCK = SystemClock()

HEAD = """
import os, signal, subprocess, sys, time
from headrace import App, Resources, Scaling
app = App("shop", owner="tests")
orders = app.stream("orders")
priced = app.stream("priced", partitions=2)
"""


class Services:
    """State in a dictionary."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[int, bytes]] = {}

    async def read_state(
        self, store: StoreAddress, keys: Sequence[str]
    ) -> list[tuple[int, bytes | None]]:
        await CLOCK.sleep(0)
        return [self.rows.get(key, (0, None)) for key in keys]

    async def scan_state(self, store: StoreAddress, prefix: str, begin: str, limit: int) -> Scanned:
        found = [(key, *row) for key, row in sorted(self.rows.items()) if key.startswith(prefix)]
        return Scanned(found[:limit], Range("", None, len(found), b"all"))


def services_of(state: Services) -> HostServices:
    """The questions that these fleets answer."""
    return HostServices(state_questions(state.read_state, state.scan_state))


class House:
    """A fleet, what it logged, and its services."""

    def __init__(
        self,
        folder: Path,
        *,
        limits: FleetLimits | None = None,
        isolation: int = 2,
        services: Services | None = None,
    ) -> None:
        self.folder = folder
        self.lines: list[InstanceLine] = []
        self.services = services or Services()
        self.failures: list[tuple[str, BaseException]] = []
        self.tasks = Tasks(self._failed)
        self.fleet = Fleet(
            FleetHost(
                CLOCK, SystemEntropy(), self.tasks, services_of(self.services), self.lines.append
            ),
            scratch=folder / "scratch",
            limits=limits or FleetLimits(instances=64),
            isolation=isolation,
        )

    def _failed(self, name: str, error: BaseException) -> None:
        # That a zygote died is told, and what these tests are about.
        if not isinstance(error, Unavailable):
            self.failures.append((name, error))

    def write(self, code: str) -> str:
        target = self.folder / "shop.py"
        target.write_text(HEAD + dedent(code))
        return str(target)

    async def deploy(self, code: str) -> None:
        await self.fleet.deploy(self.write(code))

    async def run(self, name: str, *, within: float = 5.0, events: int = 1) -> Outcome:
        return await invoke(
            self.fleet.submit, invocation(f"shop.{name}", timeout=within, events=events)
        )

    def said(self) -> list[str]:
        return [line.message for line in self.lines]


def invocation(
    function: str, *, timeout: float = 5.0, events: int = 1, affinity: str = "", key: str = ""
) -> BatchInvocation:
    body = encode_events([Event(b'{"a": 1}', key=f"key-{n}") for n in range(events)])
    chunk = Chunk("orders", 0, 0, events, body, 0, 0, events)
    return BatchInvocation(
        function,
        timeout=timeout,
        token=7,
        key=key or "orders/0/0",
        chunks=(chunk,),
        affinity=affinity,
    )


@asynccontextmanager
async def house(
    folder: Path,
    *,
    limits: FleetLimits | None = None,
    isolation: int = 2,
    services: Services | None = None,
) -> AsyncIterator[House]:
    """Open a house; when it closes nothing may be left: no process, descriptor, task or folder."""
    before = descriptors()
    opened = House(folder, limits=limits, isolation=isolation, services=services)
    try:
        yield opened
    finally:
        await opened.fleet.close()
        await opened.tasks.close()
    assert not opened.failures, opened.failures
    left = [describe(pid) for pid in children()]
    assert not left, (left, opened.said())
    # Fewer where a driver of an earlier test lets go of its sockets only now.
    assert descriptors() <= before
    assert not (folder / "scratch").exists()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def children() -> list[int]:
    found: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        found += [int(pid) for pid in (task / "children").read_text().split()]
    return found


def describe(pid: int) -> str:
    stat = Path(f"/proc/{pid}/stat").read_text().split()
    return f"{pid} {stat[1]} {stat[2]}, child of {stat[3]}, in session {stat[5]}"


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


async def eventually(holds: Callable[[], bool], *, within: float = 3.0) -> bool:
    deadline = CLOCK.monotonic() + within
    while not holds():
        if CLOCK.monotonic() > deadline:
            return False
        await CLOCK.sleep(0.01)
    return True
