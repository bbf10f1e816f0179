"""A real node in a process of its own, for tests that stand outside: over HTTP, as callers do.

In: an app's file and a folder for what the node keeps. Out: a `Served` node that can be asked; it is
stopped as an operator would, and must end in good order. Time is real here, unlike in a `World`.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from headrace.client.address import read_key, read_note
from headrace.client.http import Client
from headrace.environment.clock import SystemClock
from headrace.model.route import RESERVED
from headrace.node.config import environment_of

TIMEOUT_S = 20.0
LOOK_S = 0.02


class ServedResponse(NamedTuple):
    """Answer of the node: decoded JSON, anything else as bytes; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: Any


def ask(method: str, url: str, body: Any = None, **headers: str) -> ServedResponse:
    """Send a request, and wait for its answer, whatever the status.

    Args:
        method: Such as `POST`.
        url: The node's address and a path, with its query.
        body: Bytes as they are, None for no body, anything else as JSON.
        **headers: With `_` for `-`.
    """
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    request = Request(url, data=data, method=method, headers=named)
    try:
        answer = urlopen(request, timeout=TIMEOUT_S)
    except HTTPError as error:
        answer = error
    with answer:
        found = {name.lower(): text for name, text in answer.headers.items()}
        return opened(answer.status, found, answer.read())


def opened(status: int, headers: dict[str, str], raw: bytes) -> ServedResponse:
    """An answer as it came, with JSON opened."""
    kind = headers.get("content-type", "").partition(";")[0]
    is_json = kind == "application/json" or kind.endswith("+json")
    return ServedResponse(status, headers, json.loads(raw) if raw and is_json else raw)


def as_operator(key: str, headers: Mapping[str, str]) -> dict[str, str]:
    """The headers, with the operator's key where they bring nothing else to be let in by."""
    return {**({"authorization": f"Bearer {key}"} if key else {}), **headers}


class Served:
    """A node that runs, made by `serving`.

    Attributes:
        url: Its address, where the app's routes are.
        api_url: Where the platform's own paths are; another with `api_port`.
        key: What its operator shows to be let in.
        data: Where it keeps what must survive.
    """

    def __init__(self, data: Path, process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
        self.url = ""
        self.api_url = ""
        self.key = ""
        self.data = data
        self._process = process
        self._log = log

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> ServedResponse:
        """Send a request to a path of the node, as its operator unless `authorization` is given; see `ask`."""
        own = not RESERVED.isdisjoint(path.partition("?")[0].split("/")[1:2])
        url = self.api_url if own else self.url
        return ask(method, url + path, body, **as_operator(self.key, headers))

    def client(self) -> Client:
        """A client of the node, as its operator; close it."""
        return Client(self.api_url, token=self.key, timeout=TIMEOUT_S)

    def wait_for(self, location: str, status: str = "committed") -> Any:
        """Wait until a deferred request has reached `status`; return its status document.

        Raises:
            AssertionError: It had not within 20 seconds.
        """
        clock = SystemClock()
        deadline = clock.monotonic() + TIMEOUT_S
        while (status_body := self.ask("GET", location).body)["status"] != status:
            self._pause(
                clock.monotonic() < deadline, f"`{location}` is not `{status}`: {status_body}"
            )
        return status_body

    def _pause(self, patient: bool, complaint: str) -> None:
        """Wait a moment for the node; raise if it has ended, or if the time is over."""
        try:
            self._process.wait(LOOK_S)
        except subprocess.TimeoutExpired:
            if patient:
                return
        self._log.seek(0)
        raise AssertionError(f"{complaint}; the node said:\n{self._log.read().decode()}")


@contextmanager
def serving(
    app: str | Path,
    data: str | Path,
    *,
    environ: Mapping[str, str] | None = None,
) -> Iterator[Served]:
    """Run `headrace serve` on an app's file, on a free port, until the block is left.

    Args:
        app: The file. The node stands in its folder, and reads a `headrace.toml` there.
        data: Where the node keeps what must survive; created if it is missing, and may hold other files.
        environ: More of its environment, such as secrets; `HEADRACE_*` of ours is not passed on.

    Raises:
        AssertionError: The node did not come up, or did not end in good order.
    """
    app, data = Path(app).resolve(), Path(data).resolve()
    note = data / "node.json"
    data.parent.mkdir(parents=True, exist_ok=True)
    note.unlink(missing_ok=True)  # of a node that is no more: it would be taken for this one's
    with data.with_name(f"{data.name}.log").open("w+b") as log:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "headrace.cli.main",
                "serve",
                app.name,
                "--data",
                str(data),
                "--port",
                "0",
            ],
            cwd=app.parent,
            env=environment_of(environ or {}),
            stdout=log,
            stderr=log,
        )
        node = Served(data, process, log)
        try:
            clock = SystemClock()
            deadline = clock.monotonic() + TIMEOUT_S
            while not note.is_file():
                node._pause(clock.monotonic() < deadline, f"`{app}` is not served")
            found = read_note(data)
            assert found is not None  # noqa: S101 - it is written in one step
            node.url, node.api_url = found.url, found.api
            node.key = read_key(data)
            yield node
            process.send_signal(signal.SIGTERM)
            ended = process.wait(TIMEOUT_S)
            if ended != 0:
                log.seek(0)
                raise AssertionError(f"the node ended with {ended}:\n{log.read().decode()}")
        finally:
            process.kill()
            process.wait()
