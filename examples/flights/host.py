"""The node under test, as its operator and its clients see it: one process, and an HTTP door.

Starts, kills and restarts `headrace serve`, and speaks HTTP to it with patience: a request is sent
again until it is answered, because the node is going to be killed while requests are under way.
"""

from __future__ import annotations

import http.client
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

PATIENCE_S = 60.0
EVENTS = "application/vnd.headrace.events+x-ndjson"


class Gone(Exception):
    """The node did not come back in time, or refused what it was sent."""


class Death(NamedTuple):
    """What became of a killed host's processes: how many there were, are left, and after how long."""

    processes: int
    left: int
    took: float


class Host:
    """The `headrace serve` process on one data folder. Used by the driver's main thread."""

    def __init__(self, target: pathlib.Path, data: pathlib.Path, port: int) -> None:
        self._target = target
        self._data = data
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None
        self.log_path = data.parent / "node.log"

    @property
    def pid(self) -> int:
        """The host's process id."""
        assert self._process is not None, "the host was not started"
        return self._process.pid

    def start(self) -> float:
        """Start the node; return the seconds until it is ready."""
        began = time.perf_counter()
        command = "import sys; from headrace.cli.main import main; sys.exit(main())"
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    command,
                    "serve",
                    str(self._target),
                    "--data",
                    str(self._data),
                    "--port",
                    str(self._port),
                ],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        while time.perf_counter() - began < PATIENCE_S:
            if self._process.poll() is not None:
                raise Gone(
                    f"the node ended with status {self._process.returncode}: {self.log_tail()}"
                )
            if self.address() is not None and self._ready():
                return time.perf_counter() - began
            time.sleep(0.02)
        raise Gone(f"the node was not ready within {PATIENCE_S:.0f} s: {self.log_tail()}")

    def address(self) -> tuple[str, int] | None:
        """Where this very process listens, as it wrote it down; None until it has."""
        try:
            written = json.loads((self._data / "node.json").read_bytes())
        except (OSError, ValueError):
            return None
        if self._process is None or written.get("pid") != self._process.pid:
            return None
        parts = urlsplit(written["url"])
        return (parts.hostname or "127.0.0.1", parts.port or 80)

    def key(self) -> str:
        """What the node's operator shows to be let in; made anew at each start."""
        return (self._data / "operator.key").read_text()

    def kill(self) -> Death:
        """SIGKILL the host only; its zygotes and instances have to notice by themselves."""
        assert self._process is not None, "the host was not started"
        orphans = [(pid, started_at(pid)) for pid in descendants(self._process.pid)]
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        began = time.perf_counter()
        while time.perf_counter() - began < 10:
            if not any(started_at(pid) == since for pid, since in orphans if since):
                break
            time.sleep(0.005)
        left = sum(1 for pid, since in orphans if since and started_at(pid) == since)
        return Death(len(orphans), left, time.perf_counter() - began)

    def stop(self) -> int:
        """Ask the node to drain and end; return its exit status, or -9 if it had to be killed."""
        if self._process is None or self._process.poll() is not None:
            return -1
        self._process.terminate()
        try:
            return self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def log_tail(self) -> str:
        """The last lines the node wrote."""
        lines = self.log_path.read_text(errors="replace").splitlines()[-15:]
        return "\n".join(["", *lines]) if lines else "it wrote nothing"

    def _ready(self) -> bool:
        address = self.address()
        if address is None:
            return False
        connection = http.client.HTTPConnection(*address, timeout=2)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


class Door:
    """One keep-alive connection to the node, opened again whenever it breaks. One per thread."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._connection: http.client.HTTPConnection | None = None
        self._key = ""
        self.repeated = 0

    def publish(self, stream: str, lines: bytes) -> int:
        """Publish envelope lines; return how many the node knew already."""
        answer = self.ask("POST", f"/-/v1/streams/{quote(stream)}", lines, {"content-type": EVENTS})
        duplicates: int = answer["duplicates"]
        return duplicates

    def get(self, path: str) -> Any:
        """The JSON at `path`."""
        return self.ask("GET", path)

    def text(self, path: str) -> str:
        """The text at `path`."""
        return self._send("GET", path, None, {}).decode()

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Any:
        """Send until answered, and open the JSON answer."""
        return json.loads(self._send(method, path, body, headers or {}))

    def _send(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> bytes:
        began = time.monotonic()
        pause = 0.01
        while True:
            status, answer, after = self._once(method, path, body, headers)
            if 200 <= status < 300:
                return answer
            if status and status not in {429, 503, 507}:
                raise Gone(f"{method} {path} was answered {status}: {answer[:500]!r}")
            if time.monotonic() - began > PATIENCE_S:
                raise Gone(f"{method} {path} was not taken for {PATIENCE_S:.0f} s (last: {status})")
            self.repeated += 1
            time.sleep(max(pause, after))
            pause = min(2 * pause, 0.2)

    def _once(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, bytes, float]:
        """One try: status (0: no answer), body, and how long the node asks to wait."""
        try:
            if self._connection is None:
                address = self._host.address()
                if address is None:
                    return 0, b"", 0.0
                self._connection = http.client.HTTPConnection(*address, timeout=30)
                self._key = self._host.key()
            shown = {"authorization": f"Bearer {self._key}", **headers}
            self._connection.request(method, path, body, shown)
            response = self._connection.getresponse()
            answer = response.read()
            after = response.headers.get("retry-after", "0")
            return response.status, answer, min(float(after), 1.0)
        except (OSError, http.client.HTTPException):
            self.close()
            return 0, b"", 0.0

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Killer(threading.Thread):
    """Kills one random instance after the other, with SIGKILL, until told to stop."""

    def __init__(self, host: Host, every: float, choose: Any) -> None:
        super().__init__(name="killer", daemon=True)
        self._host = host
        self._every = every
        self._choose = choose
        self._over = threading.Event()
        self.kills = 0

    def run(self) -> None:
        door = Door(self._host)
        while not self._over.wait(self._every):
            try:
                instances = [
                    one for one in door.get("/-/v1/instances")["instances"] if one.get("pid")
                ]
            except Gone:
                continue
            busy = [one for one in instances if str(one.get("state")).lower() == "busy"]
            if instances and kill_below(
                self._host.pid, self._choose((self.kills % 3 and busy) or instances)["pid"]
            ):
                self.kills += 1

    def stop(self) -> None:
        """Kill no more."""
        self._over.set()
        self.join()


def kill_below(ancestor: int, pid: int) -> bool:
    """SIGKILL `pid`, but only if it descends from `ancestor`; the pidfd makes sure it is still it."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if pid not in descendants(ancestor):
            return False
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(handle)


def descendants(ancestor: int) -> set[int]:
    """Every living process below `ancestor`."""
    parents: dict[int, int] = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = _stat(int(entry.name))
            if fields:
                parents[int(entry.name)] = int(fields[1])
    found = {ancestor}
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        found |= more
        grown = bool(more)
    return found - {ancestor}


def started_at(pid: int) -> str | None:
    """When a process began, in ticks since boot, which tells it from a later one of the same id."""
    fields = _stat(pid)
    return fields[19] if fields and fields[0] != "Z" else None


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat from the state on; empty if there is no such process."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    return text.rpartition(")")[2].split()
