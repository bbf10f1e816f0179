"""`headrace bench`: what this machine does, from publish over HTTP to commit, with a real node.

Starts a node of its own in a folder of its own, with a function that looks at every event and does
nothing. First a trickle, for latency; then everything at once, for throughput. The folder is deleted.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

from headrace.cli.connection import json_option
from headrace.cli.output import print_json
from headrace.cli.size_type import SizeType
from headrace.client.address import read_key
from headrace.client.calls import ENVELOPES
from headrace.client.http import Client
from headrace.environment.clock import SystemClock
from headrace.model.errors import Unavailable

APP = """
from headrace import App, Batch

app = App("bench")
events = app.stream("bench.events", partitions={partitions})

@app.function(events, batch_size={batch})
def look(batch: Batch) -> None:
    for event in batch:
        event.value
"""
START_S = 20.0
DRAIN_S = 300.0


@click.command("bench")
@click.option("--events", type=click.IntRange(1_000, 5_000_000), default=100_000, show_default=True)
@click.option(
    "--size",
    type=SizeType(1, 65_536),
    default=100,
    show_default=True,
    help="Size of an event.",
)
@click.option("--batch", type=click.IntRange(1, 10_000), default=1_000, show_default=True)
@click.option("--partitions", type=click.IntRange(1, 64), default=1, show_default=True)
@click.option(
    "--in",
    "folder",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="DIR",
    help="Measure the disk of this folder  [default: the temporary one].",
)
@json_option
def bench_command(
    events: int, size: int, batch: int, partitions: int, folder: Path | None, as_json: bool
) -> None:
    """Measure this machine: events a second from publish to commit, and the latency of one."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-", dir=folder) as inside:
        home = Path(inside)
        # Instances run under users of their own, who must be able to come here.
        home.chmod(0o755)
        (home / "app.py").write_text(APP.format(partitions=partitions, batch=batch))
        with _node(home) as url, Client(url, token=read_key(home / "data")) as client:
            _publish(client, 1, size, 1)
            _wait_for_commit(client)
            latencies = sorted(_one(client, size) for _ in range(200))
            figures = _flood(client, events, size, batch)
    figures |= {
        "latency_p50_ms": round(latencies[len(latencies) // 2] * 1_000, 3),
        "latency_p99_ms": round(latencies[len(latencies) * 99 // 100] * 1_000, 3),
    }
    if as_json:
        print_json(figures)
        return
    click.echo(
        f"{events:,} events of {size} bytes, batches of {batch:,}, {partitions} partition(s)"
    )
    click.echo(
        f"published   {figures['published_per_s']:>12,.0f} events/s (over HTTP, on the disk)"
    )
    click.echo(f"committed   {figures['committed_per_s']:>12,.0f} events/s (publish to commit)")
    click.echo(
        f"one event   {figures['latency_p50_ms']:>9.2f} ms   publish to commit as a client sees it, "
        f"median (99 %: {figures['latency_p99_ms']:.2f} ms)"
    )


@contextlib.contextmanager
def _node(home: Path) -> Iterator[str]:
    clock = SystemClock()
    with (home / "node.log").open("wb") as log:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "headrace.cli.main",
                "serve",
                "app.py",
                "--data",
                "data",
                "--port",
                "0",
                "--log-level",
                "warning",
            ],
            cwd=home,
            stdout=log,
            stderr=log,
        )
        try:
            deadline = clock.monotonic() + START_S
            note = home / "data" / "node.json"
            while not note.is_file():
                if process.poll() is not None or clock.monotonic() > deadline:
                    said = (home / "node.log").read_text(errors="replace")[-2_000:]
                    raise Unavailable(f"the node to be measured did not start:\n{said}")
                clock.pause(0.01)
            yield msgspec.json.decode(note.read_bytes())["url"]
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _publish(client: Client, count: int, size: int, batch: int) -> None:
    line = b'{"value":"' + b"x" * max(size - 2, 0) + b'"}'
    whole = b"\n".join([line] * batch)
    for start in range(0, count, batch):
        body = whole if count - start >= batch else b"\n".join([line] * (count - start))
        client.publish("bench.events", body, media=ENVELOPES)


def _lag(client: Client) -> int:
    rows: list[dict[str, Any]] = client.get("lag")["lag"]
    return sum(row["lag"] for row in rows)


def _wait_for_commit(client: Client, seconds: float = START_S, pause_s: float = 0.0) -> None:
    clock = SystemClock()
    deadline = clock.monotonic() + seconds
    while _lag(client):
        if clock.monotonic() > deadline:
            raise Unavailable(
                f"the events were not committed within {seconds:g} s; `headrace doctor` may say why"
            )
        if pause_s:
            clock.pause(pause_s)


def _one(client: Client, size: int) -> float:
    clock = SystemClock()
    began = clock.monotonic()
    _publish(client, 1, size, 1)
    _wait_for_commit(client)
    return clock.monotonic() - began


def _flood(client: Client, events: int, size: int, batch: int) -> dict[str, Any]:
    clock = SystemClock()
    began = clock.monotonic()
    _publish(client, events, size, batch)
    published = clock.monotonic() - began
    _wait_for_commit(client, DRAIN_S, 0.005)
    committed = clock.monotonic() - began
    return {
        "events": events,
        "size_bytes": size,
        "batch": batch,
        "published_per_s": round(events / published, 1),
        "committed_per_s": round(events / committed, 1),
    }
