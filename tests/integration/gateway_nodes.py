"""Nodes with an open server for tests: a real one as a process, and one in memory inside the test."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from headrace import testing
from headrace.client.address import read_key
from headrace.client.http import Client
from headrace.environment.clock import SystemClock
from headrace.environment.randomness import SystemEntropy
from headrace.environment.tasks import Tasks
from headrace.http.server.server import Gateway
from headrace.http.server.server_state import Timeouts
from headrace.model.function import StreamSpec
from headrace.node.assembly import Node
from headrace.node.config import Settings
from headrace.storage.kv.memory import MemoryStorage
from headrace.storage.log.memory import MemoryBroker
from headrace.testing.served import Served

NEIGHBOURS = {"HEADRACE_ACCESS": "local"}
"""Clients of most tests are processes of this machine, and show no token."""
APP = '''
"""The app behind the tests of the server and the commands."""

import time
import urllib.request

import msgspec

from headrace import App, Batch, Context, DeadLetter, ParkKey, Retry

app = App("shop", owner="sellers")


class Order(msgspec.Struct):
    item: str
    quantity: int


orders = app.stream("orders", partitions=2, value=Order)
parcels = app.stream("parcels", partitions=2)
notes = app.stream("notes", value=str)
blobs = app.stream("blobs", value=bytes)
shelf = app.store("shelf", bool)
secret = app.stream("secret", private=True)


@app.function(orders, batch_size=100, retry=Retry(attempts=1), on_failure=DeadLetter())
def count(events: Batch[Order], context: Context) -> None:
    """Add each order to the total of its item."""
    for event in events:
        order = event.value
        if order.quantity <= 0:
            context.fail(event, "nothing was ordered")
            continue
        print(f"counting {order.item}")
        sold = context.state.get(order.item, 0) + order.quantity
        context.state.put(order.item, sold)


@app.function(parcels, retry=Retry(attempts=1), on_failure=ParkKey())
def ship(event, context):
    """Ship what is not fragile."""
    if event.value == "fragile" and not context.store(shelf).get("glove"):
        raise ValueError("too fragile to ship")
    context.state.put(f"shipped/{event.key}", event.value)


@app.function()
def double(event):
    """Twice what it is given."""
    return event.value * 2


@app.function(timeout=0.3)
def sleepy(event):
    """Longer than it may take."""
    time.sleep(5)


@app.function()
def wear_gloves(event, context):
    """Let fragile parcels be shipped."""
    context.store(shelf)["glove"] = True
'''


_folders: dict[str, Path] = {}
"""The data folder of each node that was started, by its address."""


def operator(url: str) -> Client:
    """A client that operates the node at `url`."""
    return Client(url, token=read_key(_folders[url]))


def at(url: str) -> tuple[str, str]:
    """The option by which a command operates the node at `url`."""
    return "--data", str(_folders[url])


@contextlib.contextmanager
def served(folder: Path, app: str = APP) -> Iterator[Served]:
    """A node in a process of its own, running `app`."""
    for each in (folder, *folder.parents[:2]):
        each.chmod(each.stat().st_mode | 0o755)
    (folder / "app.py").write_text(app)
    with testing.serving(folder / "app.py", folder / "data", environ=NEIGHBOURS) as node:
        _folders[node.url] = node.data
        yield node


@contextlib.contextmanager
def serving(folder: Path, *, app: str = APP) -> Iterator[str]:
    """The same; its address."""
    with served(folder, app) as node:
        yield node.url


def wait_for(look: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Look until something is found."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)
    return found


def page(url: str, path: str) -> str:
    """What a browser or a monitor of this machine gets at a path of the root."""
    with urllib.request.urlopen(f"{url}{path}") as answer:
        text: bytes = answer.read()
    return text.decode()


def records(client: Client, stream: str) -> list[Any]:
    """The value of every record of a stream."""
    found: list[Any] = []
    cursor = None
    while True:
        page = client.get("streams", stream, "records", limit=1_000, cursor=cursor)
        found += [record["value"] for record in page["records"]]
        cursor = page["cursor"]
        if not page["records"]:
            return found


def settle(client: Client, seconds: float = 15.0) -> None:
    """Wait until no function is behind."""
    deadline = time.monotonic() + seconds
    while sum(row["lag"] for row in client.get("lag")["lag"]):
        assert time.monotonic() < deadline, client.get("lag")
        time.sleep(0.01)


@contextlib.asynccontextmanager
async def memory_gateway(
    folder: Path, *, timeouts: Timeouts | None = None, **settings: object
) -> AsyncIterator[tuple[Gateway, Node]]:
    """An HTTP server in this process over rooms in memory, with one public stream `orders`."""
    clock = SystemClock()
    storage = MemoryStorage(clock)
    tasks = Tasks(lambda name, error: None)
    broker = MemoryBroker(storage, clock=clock, tasks=tasks)
    told = Settings(data=folder, port=0, **{"access": "local", **settings})  # type: ignore[arg-type]
    node = Node(
        told, storage=storage, broker=broker, clock=clock, entropy=SystemEntropy(), tasks=tasks
    )
    await broker.declare(StreamSpec(name="orders", partitions=2))
    gateway = Gateway(node.services(), told, timeouts or Timeouts())
    await gateway.start("127.0.0.1", 0)
    try:
        yield gateway, node
    finally:
        await gateway.stop(1.0)
        await node.close()


async def raw(url: str, *parts: bytes, pause: float = 0.0, wait_s: float = 10.0) -> bytes:
    """Send bytes over a fresh connection, one part after the other; what comes back.

    Reads while it writes, until the server closes the connection or says nothing for `wait_s`
    seconds after the last part.
    """
    host, _, port = url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    answer = bytearray()

    async def read() -> None:
        with contextlib.suppress(ConnectionError):
            while part := await reader.read(65_536):
                answer.extend(part)

    reading = asyncio.create_task(read())
    try:
        for part in parts:
            if reading.done():
                break
            writer.write(part)
            with contextlib.suppress(ConnectionError):
                await writer.drain()
            if pause:
                await asyncio.sleep(pause)
        await asyncio.wait({reading}, timeout=wait_s)
    finally:
        reading.cancel()
        writer.close()
        await asyncio.gather(reading, return_exceptions=True)
    return bytes(answer)


def start(folder: Path, *apps: str) -> tuple[subprocess.Popen[bytes], str]:
    """`headrace serve` over the folder's `app.py` (or `apps`) and `data`, in a process; and its address.

    Raises:
        AssertionError: It does not come up; with what it said.
    """
    note, log = folder / "data" / "node.json", folder / "node.log"
    note.unlink(missing_ok=True)
    environ = {name: value for name, value in os.environ.items() if "HEADRACE" not in name}
    environ |= NEIGHBOURS
    command = ["serve", *(apps or ("app.py",)), "--data", "data", "--port", "0"]
    with log.open("ab") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "headrace.cli.main", *command],
            cwd=folder,
            stdout=said,
            stderr=said,
            env=environ,
        )
    try:
        wait_for(lambda: note.is_file() or process.poll() is not None)
        assert note.is_file(), log.read_text()
    except BaseException:
        process.kill()
        process.wait()
        raise
    url: str = msgspec.json.decode(note.read_bytes())["url"]
    _folders[url] = note.parent
    return process, url
