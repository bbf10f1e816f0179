"""The same two tests for every peer: drain a backlog, and the latency of single events.

Drain: the backlog is enqueued first, then one worker process is started; the figure is events over
the time from the first to the last handler call, so that start-up does not count. Latency: with the
worker running, one event every 10 ms; from before the producer's call to the handler's first line.
The server and the producer have one core, the worker the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.figures import cores, pin, report, spread
from bench.peers.servers import BIN
from bench.turns import CHECKOUT

BACKLOG = 10_000
SINGLES = 280
EVERY_S = 0.01
PATIENCE_S = 60.0
FILL = "x" * 150
"""With the rest of the message, about 200 bytes of payload."""


@dataclass(frozen=True)
class Peer:
    """How one framework is driven.

    Attributes:
        send: Enqueue events with these sending times, as fast as its producer can.
        worker: Its worker's command line, in the peers' environment.
        environment: What the worker's module reads its addresses from.
        close: Let the producer's connections go, in the loop `send` ran in.
    """

    send: Callable[[Sequence[float]], Awaitable[None] | None]
    worker: list[str]
    environment: dict[str, str]
    close: Callable[[], Awaitable[None]] | None = None


class WorkerFailed(Exception):
    """The worker ended or did not come to the end of its work."""


class Worker:
    """The peer's worker process."""

    def __init__(self, peer: Peer, expected: int, folder: Path) -> None:
        self.path = folder / "tally.json"
        self.path.unlink(missing_ok=True)
        self._log = (folder / "worker.log").open("w+")
        _, core = cores()
        environment = {
            **os.environ,
            **peer.environment,
            "PYTHONPATH": str(CHECKOUT),
            "BENCH_EXPECTED": str(expected),
            "BENCH_TALLY": str(self.path),
        }
        command = [str(BIN / peer.worker[0]), *peer.worker[1:]]
        self._process = subprocess.Popen(
            ["taskset", "-c", str(core), *command],
            cwd=CHECKOUT,
            env=environment,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            process_group=0,
        )

    async def wait(self) -> dict[str, float | list[float]]:
        """The tally.

        Raises:
            WorkerFailed: With the end of the worker's log.
        """
        until = time.monotonic() + PATIENCE_S
        while not self.path.exists():
            if self._process.poll() is not None or time.monotonic() > until:
                self._log.seek(0)
                raise WorkerFailed(" | ".join(self._log.read().strip().splitlines()[-4:])[-400:])
            await asyncio.sleep(0.02)
        tally: dict[str, float | list[float]] = json.loads(self.path.read_text())
        return tally

    def close(self) -> None:
        """End it and all it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._log.close()
        # A grandchild may live a moment longer and take an event of the next test along.
        time.sleep(0.3)


async def _send(peer: Peer, times: Sequence[float]) -> None:
    sending = peer.send(times)
    if inspect.isawaitable(sending):
        await sending


async def _drain(peer: Peer, backlog: int, folder: Path) -> dict[str, float]:
    began = time.perf_counter()
    await _send(peer, [0.0] * backlog)
    enqueue_s = time.perf_counter() - began
    worker = Worker(peer, backlog, folder)
    try:
        tally = await worker.wait()
    finally:
        worker.close()
    seconds = tally["seconds"]
    assert isinstance(seconds, float)
    return {"enqueue_per_s": backlog / enqueue_s, "drain_per_s": backlog / seconds}


async def _latency(peer: Peer, singles: int, warm_up: int, folder: Path) -> dict[str, float]:
    worker = Worker(peer, singles + warm_up, folder)
    try:
        # The worker is up once it takes events; those of the warm-up carry no sending time.
        await _send(peer, [0.0] * warm_up)
        await asyncio.sleep(3.0)
        for _ in range(singles):
            await _send(peer, [time.time()])
            await asyncio.sleep(EVERY_S)
        tally = await worker.wait()
    finally:
        worker.close()
    latencies = tally["latencies"]
    assert isinstance(latencies, list)
    return spread(latencies, scale=1e3, prefix="latency_ms_")


async def measure(
    peer: Callable[[], Peer], *, quick: bool, backlog: int = BACKLOG
) -> dict[str, float]:
    """Both tests, in one loop, so that an asynchronous producer keeps its connections."""
    driven = peer()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            figures = await _drain(driven, 300 if quick else backlog, folder)
            figures |= await _latency(driven, 30 if quick else SINGLES, 20, folder)
        finally:
            if driven.close is not None:
                await driven.close()
    return figures


def drive(peer: Callable[[], Peer], *, quick: bool, backlog: int = BACKLOG) -> None:
    """Measure and report."""
    pin(cores()[0])
    report(**asyncio.run(measure(peer, quick=quick, backlog=backlog)))
