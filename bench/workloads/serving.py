"""`headrace serve` as a process of its own, looked at from outside only."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.workloads.runtime import APPS

PATIENCE_S = 120.0
POLL_S = 0.002


class ServeWentWrong(Exception):
    """The process ended or does not answer; with the end of its log."""


def headrace() -> str:
    """The command, of the environment this runs in."""
    return str(Path(sys.executable).parent / "headrace")


def command(*arguments: str) -> list[str]:
    """The command line, with the module where the script is not installed."""
    if Path(headrace()).exists():
        return [headrace(), *arguments]
    return [sys.executable, "-c", "from headrace.cli.main import main; main()", *arguments]


class Serving:
    """A running `headrace serve`."""

    def __init__(self, app: str, data: Path, *, verb: str = "serve") -> None:
        self.data = data
        data.mkdir(parents=True, exist_ok=True)
        self._log_path = data.parent / f"{data.name}.log"
        self._log = self._log_path.open("w")
        (data / "node.json").unlink(missing_ok=True)
        self.began = time.perf_counter()
        self.process = subprocess.Popen(
            command(
                verb,
                app if app.endswith(".py") else str(APPS / f"{app}.py"),
                "--data",
                str(data),
                "--port",
                "0",
            ),
            stdout=self._log,
            stderr=subprocess.STDOUT,
            # Clients that measure show no token.
            env={**os.environ, "HEADRACE_ACCESS": "local"},
        )
        self.url = ""

    def wait_ready(self) -> float:
        """Seconds from the start of the process until it says that it is ready.

        Raises:
            ServeWentWrong: It does not come up.
        """
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            self._check()
            with contextlib.suppress(FileNotFoundError, ValueError, KeyError):
                self.url = json.loads((self.data / "node.json").read_text())["url"]
                with contextlib.suppress(OSError, urllib.error.URLError):
                    self.get("/readyz")
                    return time.perf_counter() - self.began
            time.sleep(POLL_S)
        raise ServeWentWrong(f"not ready after {PATIENCE_S:.0f} s")

    def _check(self) -> None:
        if self.process.poll() is not None:
            lines = self._log_path.read_text().strip().splitlines()[-3:]
            raise ServeWentWrong(f"ended with {self.process.returncode}: {' | '.join(lines)[:300]}")

    def get(self, path: str) -> Any:
        """The answer's JSON."""
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return json.loads(answer.read() or b"null")

    def post(self, path: str, body: bytes) -> Any:
        """The answer's JSON."""
        request = urllib.request.Request(
            self.url + path, data=body, headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or b"null")

    def resident_mib(self) -> float:
        """Memory of the host process."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)

    def processor_s(self) -> float:
        """Processor time the host process has had."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        self.process.kill()
        self.process.wait()
        self._log.close()

    def stop(self) -> None:
        """SIGTERM, and wait."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._log.close()


@contextlib.contextmanager
def serving(app: str, data: Path, *, verb: str = "serve") -> Iterator[Serving]:
    """A node that is ready, stopped at the end."""
    node = Serving(app, data, verb=verb)
    try:
        node.wait_ready()
        yield node
    finally:
        node.stop()
