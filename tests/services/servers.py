"""Real servers for tests, each a process of its own on a free port; started, killed, begun again.

The scripts beside this file know how; this file knows when. A server that cannot run here is
skipped with the reason, and is a failure where `CI=true` says that all must be there.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent
START_S = 60.0


def missing(name: str) -> str:
    """Why the server cannot run here; empty where it can."""
    asked = subprocess.run(
        [str(HERE / f"{name}.sh"), "missing"], capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() if asked.returncode == 0 else ""


def absent(reason: str, cure: str = "`make services` brings it") -> None:
    """Skip the test, or fail it where everything must be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}; {cure}")
    pytest.skip(f"{reason}; {cure}")


def free_port() -> int:
    """A port nobody listens on, below those the kernel gives to outgoing connections."""
    for port in range(21_000 + os.getpid() % 5_000, 32_000):
        with contextlib.closing(socket.socket()) as taken, contextlib.suppress(OSError):
            taken.bind(("127.0.0.1", port))
            return port
    raise OSError("no port is free")


class Server:
    """One server with its folder. `start` after `kill` finds its data again, on the same port."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.port = free_port()
        self._script = str(HERE / f"{name}.sh")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Run it, and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "output.log").open("ab") as output:
            self._process = subprocess.Popen(
                [self._script, "run", str(self.folder), str(self.port)],
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        until = time.monotonic() + START_S
        while subprocess.run([self._script, "ready", str(self.port)], check=False).returncode:
            if self._process.poll() is not None or time.monotonic() > until:
                said = (self.folder / "output.log").read_text(errors="replace")[-2_000:]
                self.kill()
                raise AssertionError(f"`{self.name}` did not start:\n{said}")
            time.sleep(0.1)

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End it and its children at once; safe to call twice."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, how)
            process.wait(30)
