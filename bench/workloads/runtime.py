"""A fleet without a node around it, for the workloads that measure the runtime alone."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from bench.figures import scratch
from headrace.environment.clock import SystemClock
from headrace.environment.randomness import SystemEntropy
from headrace.environment.tasks import Tasks
from headrace.model.event import Event
from headrace.model.invocation import CallInvocation
from headrace.model.outcome import Outcome, Returned, Scanned
from headrace.model.record import encode_events
from headrace.model.stores import StoreAddress
from headrace.runtime.fleet import Fleet
from headrace.runtime.host_services import HostServices, state_questions
from headrace.runtime.process.fleet_host import FleetHost

APPS = Path(__file__).parent.parent / "apps"
_tokens = itertools.count(1)


class NoState:
    """Host services for functions that keep nothing."""

    async def read_state(
        self, store: StoreAddress, keys: Sequence[str]
    ) -> list[tuple[int, bytes | None]]:
        return [(0, None)] * len(keys)

    async def scan_state(self, store: StoreAddress, prefix: str, begin: str, limit: int) -> Scanned:
        raise NotImplementedError("no function that is measured scans its state")


def call(function: str, payload: bytes = b"{}") -> CallInvocation:
    """A direct call with one payload."""
    body = encode_events([Event(payload)])
    token = next(_tokens)
    return CallInvocation(function, token=token, key=f"bench/{token}", event=body)


class CallWentWrong(Exception):
    """The function did not answer; a figure would be meaningless."""


def answer(outcome: Outcome) -> bytes:
    """The result of a call that must have succeeded."""
    if not isinstance(outcome, Returned) or outcome.error is not None or outcome.result is None:
        raise CallWentWrong(repr(outcome)[:500])
    return outcome.result


@contextlib.asynccontextmanager
async def fleet_of(app: str) -> AsyncIterator[Fleet]:
    """A fleet with one of the bench apps deployed."""
    failures: list[str] = []
    nothing = NoState()
    tasks = Tasks(lambda name, error: failures.append(f"{name}: {error!r}"))
    with scratch("fleet") as folder:
        services = HostServices(state_questions(nothing.read_state, nothing.scan_state))
        fleet = Fleet(FleetHost(SystemClock(), SystemEntropy(), tasks, services), scratch=folder)
        try:
            await fleet.deploy(str(APPS / f"{app}.py"))
            yield fleet
        finally:
            await fleet.close()
            await tasks.close()
    if failures:
        raise CallWentWrong("; ".join(failures))
