"""Starts the peers' servers on free ports, with data on the disk under test, and ends them."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from bench.figures import scratch

BIN = Path(__file__).parent.parent.parent / ".venv-peers" / "bin"
PATIENCE_S = 10.0


class ServerMissing(Exception):
    """`bench/peers/setup.sh` has not been run, or a server does not come up."""


def executable(name: str) -> str:
    """Where the program is: in the peers' environment, or on the path."""
    local = BIN / name
    found = str(local) if local.exists() else shutil.which(name)
    if found is None:
        raise ServerMissing(f"`{name}` is not installed; run `bench/peers/setup.sh`")
    return found


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(port: int) -> None:
    """Return once something listens on the port."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise ServerMissing(f"nothing listens on port {port} after {PATIENCE_S:.0f} s")


@contextlib.contextmanager
def serving(command: list[str], port: int) -> Iterator[None]:
    """A server for the length of the block."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(port)
        yield
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def redis_server(*, durable: bool) -> Iterator[str]:
    """The URL of a fresh Redis; `durable` fsyncs its log before every answer."""
    port = free_port()
    with scratch("redis") as folder:
        log = (
            ["--appendonly", "yes", "--appendfsync", "always"]
            if durable
            else ["--appendonly", "no"]
        )
        command = [
            executable("redis-server"),
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--dir",
            str(folder),
            "--save",
            "",
            *log,
        ]
        with serving(command, port):
            yield f"redis://127.0.0.1:{port}/0"


@contextlib.contextmanager
def nats_server() -> Iterator[str]:
    """The URL of a fresh NATS with JetStream on disk.

    Its own default: written at once, fsynced every two minutes.
    """
    port = free_port()
    with scratch("nats") as folder:
        command = [
            executable("nats-server"),
            "-a",
            "127.0.0.1",
            "-p",
            str(port),
            "-js",
            "-sd",
            str(folder),
        ]
        with serving(command, port):
            yield f"nats://127.0.0.1:{port}"
