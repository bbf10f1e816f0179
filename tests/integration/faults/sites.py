"""One node on trial: its folder, its process, the way to ask it, and what it leaves behind.

A site is a folder with an app, a data folder and one `headrace serve` after the other on it. It may
be killed and started as often as one likes; asking it waits for the next life. When the site closes,
everything that was ever started is gone, whatever happened.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.integration.faults.processes import (
    Process,
    adopt_orphans,
    below,
    process,
    reap,
    wait_until,
)

from headrace.client.address import read_key

START_S = 20.0
PATIENCE_S = 60.0
AGAIN = frozenset({429, 503, 507})
"""Answers that ask for another try."""
ORPHANS_S = 5.0
_DIE_WITH_US = """
import ctypes, sys
ctypes.CDLL(None).prctl(1, 9)  # the node dies with whoever tries it
"""
_SERVE = """
from headrace.cli.main import main
sys.exit(main())
"""


class Ended(AssertionError):
    """The node ended, or did not answer, where it should have lived."""


class Site:
    """One folder and the node on it. Started and killed by one thread; asked by many.

    Attributes:
        prelude: Code that the process runs before the node, as whoever breaks its world needs it.
        environ: What stands in its environment besides ours.
    """

    def __init__(self, folder: Path, own: list[Process]) -> None:
        self.prelude = ""
        self.environ: dict[str, str] = {}
        self.folder = folder
        self.data = folder / "data"
        self.log_path = folder / "node.log"
        self.trace_path = folder / "trace"
        self.restarts: list[float] = []
        self.orphan_seconds: list[float] = []
        self._own = own
        self._popen: subprocess.Popen[bytes] | None = None
        self._address: tuple[int, tuple[str, int]] | None = None
        self._local = threading.local()

    def write(self, app: str) -> None:
        """Put the app's code there; `{trace}` in it becomes the path of the trace file."""
        (self.folder / "app.py").write_text(app.replace("{trace}", str(self.trace_path)))
        self.trace_path.touch()
        self.trace_path.chmod(0o666)

    # Its life ------------------------------------------------------------------------------

    @property
    def host(self) -> Process:
        """The host process of the present life."""
        assert self._popen is not None, "the node was not started"
        found = process(self._popen.pid)
        if found is None:
            raise Ended(f"the node is gone: {self.said()}")
        return found

    def launch(self, *, failpoint: str = "") -> None:
        """Start the process and do not wait for it."""
        environ = {name: value for name, value in os.environ.items() if "HEADRACE" not in name}
        environ |= {"HEADRACE_ACCESS": "local", **self.environ}
        if failpoint:
            environ["HEADRACE_FAILPOINT"] = failpoint
        with self.log_path.open("ab") as log:
            self._popen = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    _DIE_WITH_US + self.prelude + _SERVE,
                    "serve",
                    "app.py",
                    "--data",
                    str(self.data),
                    "--port",
                    "0",
                ],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environ,
            )

    def start(self) -> float:
        """Start the node and wait until it takes work; the seconds that took."""
        began = time.monotonic()
        self.launch()
        self.wait_ready()
        self.restarts.append(time.monotonic() - began)
        return self.restarts[-1]

    def wait_ready(self) -> None:
        """Wait until the node takes work.

        Raises:
            Ended: It ended before.
        """

        def ready() -> bool:
            if not self.is_alive():
                raise Ended(f"the node ended while it started: {self.said()}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                return self.once("GET", "/readyz")[0] == 200
            return False

        wait_until(ready, seconds=START_S, what=lambda: f"ready: {self.said()}")

    def is_alive(self) -> bool:
        """Whether the host process runs."""
        return self._popen is not None and self._popen.poll() is None

    def family(self) -> list[Process]:
        """Zygotes and instances of the present life."""
        return [] if self._popen is None else below(self._popen.pid)

    def kill(self) -> None:
        """SIGKILL the host alone; its zygotes and instances have to notice by themselves."""
        assert self._popen is not None, "the node was not started"
        family = self.family()
        self._popen.kill()
        self._popen.wait()
        self.see_gone(family)

    def destroy(self) -> None:
        """SIGKILL the host and everything below it, as when a machine goes away."""
        assert self._popen is not None, "the node was not started"
        family = self.family()
        self._popen.kill()
        for each in family:
            each.send(signal.SIGKILL)
        self._popen.wait()
        self.see_gone(family)

    def wait_death(self, seconds: float, *, status: int = -signal.SIGKILL) -> None:
        """Wait until a fault has ended the host in this way, and its children have noticed."""
        assert self._popen is not None, "the node was not started"
        popen, family = self._popen, list[Process]()

        def died() -> bool:
            family.extend(each for each in below(popen.pid) if each not in family)
            return popen.poll() is not None

        wait_until(died, seconds=seconds, what=lambda: f"the node dies: {self.said()}", every=0.02)
        if popen.returncode != status:
            raise Ended(f"the node ended with {popen.returncode}, not {status}: {self.said()}")
        self.see_gone(family)

    def see_gone(self, family: list[Process]) -> None:
        """Wait until no process of a life that is over is left (I7)."""
        began = time.monotonic()

        def gone() -> bool:
            reap(family)
            return not any(each.is_alive() for each in family)

        wait_until(
            gone,
            seconds=ORPHANS_S,
            what=lambda: f"I7: {[each for each in family if each.is_alive()]} end without a host",
        )
        self.orphan_seconds.append(time.monotonic() - began)

    def stop(self) -> None:
        """Ask the node to end, and see that it ends well and leaves nothing."""
        assert self._popen is not None, "the node was not started"
        family = self.family()
        self._popen.terminate()
        try:
            code = self._popen.wait(timeout=30)
        except subprocess.TimeoutExpired:
            raise Ended(f"the node did not drain within 30 s: {self.said()}") from None
        if code:
            raise Ended(f"the node ended with status {code}: {self.said()}")
        self.see_gone(family)

    def said(self) -> str:
        """The last lines the node wrote."""
        text = self.log_path.read_text(errors="replace") if self.log_path.exists() else ""
        return "\n".join(["", *text.splitlines()[-25:]])

    def close(self) -> None:
        """End everything that was started here."""
        if self._popen is not None and self._popen.poll() is None:
            self._popen.kill()
            self._popen.wait()
        left = [each for each in below(os.getpid()) if each not in self._own]
        for each in left:
            each.send(signal.SIGKILL)

        def reaped() -> bool:
            reap(left)
            return not any(each.state() for each in left)

        wait_until(reaped, seconds=10, what=lambda: f"{left} are gone")

    # Asking it -----------------------------------------------------------------------------

    def once(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        *,
        operates: bool = False,
        timeout: float = 10.0,
    ) -> tuple[int, bytes]:
        """Ask one time, over this thread's connection to the present life; as its operator if need be.

        Raises:
            OSError, HTTPException: There was no answer.
        """
        address = self._find()
        if getattr(self._local, "address", None) != address:
            self.hang_up()
            self._local.address = address
            self._local.connection = http.client.HTTPConnection(*address, timeout=timeout)
        connection: http.client.HTTPConnection = self._local.connection
        shown = {"authorization": f"Bearer {read_key(self.data)}"} if operates else {}
        try:
            connection.request(method, path, body, shown | (headers or {}))
            answer = connection.getresponse()
            return answer.status, answer.read()
        except BaseException:
            self.hang_up()
            raise

    def ask(
        self,
        path: str,
        *,
        body: bytes | None = None,
        media: str = "application/json",
        key: str = "",
        operates: bool = False,
        seconds: float = PATIENCE_S,
    ) -> bytes:
        """Ask until there is a good answer, through as many lives as that takes.

        Under an idempotency key whatever may have happened is asked for again, failures included.

        Raises:
            Ended: The node refused, or gave no answer in time.
        """
        began, pause, last = time.monotonic(), 0.01, "nothing"
        headers = {"content-type": media} | ({"idempotency-key": key} if key else {})
        while time.monotonic() - began < seconds:
            try:
                method = "GET" if body is None else "POST"
                status, answer = self.once(method, path, body, headers, operates=operates)
            except (OSError, http.client.HTTPException) as error:
                last = repr(error)
            else:
                if status < 300:
                    return answer
                last = f"{status} {answer[:300]!r}"
                if status not in AGAIN and not (key and (status == 409 or status >= 429)):
                    break
            time.sleep(pause)
            pause = min(2 * pause, 0.2)
        raise Ended(f"`{path}` was answered {last}: {self.said()}")

    def get(self, path: str) -> Any:
        """The JSON at `path`."""
        return json.loads(self.ask(path))

    def hang_up(self) -> None:
        """Close this thread's connection."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
        self._local.address = self._local.connection = None

    def wait_drained(self, seconds: float = 60.0) -> float:
        """Wait until no function is behind (I9); the seconds that took."""

        def drained() -> bool:
            return not sum(row["lag"] for row in self.get("/-/v1/lag")["lag"])

        return wait_until(
            drained,
            seconds=seconds,
            every=0.05,
            what=lambda: f"I9: the backlog drains: {self.get('/-/v1/lag')} {self.said()}",
        )

    def instances(self, function: str = "") -> list[dict[str, Any]]:
        """The instances as the node lists them, those of one function where it is named."""
        listed: list[dict[str, Any]] = self.get("/-/v1/instances")["instances"]
        return [each for each in listed if each["pid"] and function in {"", each["function"]}]

    def _find(self) -> tuple[str, int]:
        """Where the present life listens."""
        life = 0 if self._popen is None else self._popen.pid
        known = self._address
        if known is not None and known[0] == life:
            return known[1]
        try:
            note = json.loads((self.data / "node.json").read_bytes())
        except ValueError as error:
            raise ConnectionRefusedError("node.json is half written") from error
        if note["pid"] != life:
            raise ConnectionRefusedError("this life has no door yet")
        parts = urlsplit(note["url"])
        self._address = life, (parts.hostname or "", parts.port or 0)
        return self._address[1]


@contextlib.contextmanager
def site() -> Iterator[Site]:
    """Open a site in a folder that any uid may pass through; close and remove it at the end."""
    folder = Path(tempfile.mkdtemp(prefix="headrace-fault-"))
    folder.chmod(folder.stat().st_mode | 0o755)
    adopt_orphans(True)
    opened = Site(folder, below(os.getpid()))
    try:
        yield opened
    finally:
        try:
            opened.close()
        finally:
            adopt_orphans(False)
            opened.hang_up()
            shutil.rmtree(folder, ignore_errors=True)
