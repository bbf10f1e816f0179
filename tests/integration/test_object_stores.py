"""An object store watched by prefix: S3 as moto serves it, and a folder as obstore serves it."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.services.servers import absent
from tests.services.systems import AWS

from headrace import App, Event
from headrace.environment.clock import SystemClock
from headrace.environment.tasks import Tasks
from headrace.errors import Misuse
from headrace.model.errors import Unavailable
from headrace.model.function import StreamSpec
from headrace.sources import Objects, Sftp
from headrace.sources.base import SourceAppender
from headrace.sources.files.object_store import ObjectStore
from headrace.sources.files.source import FilesSource
from headrace.storage.kv.sqlite.storage import SqliteStorage
from headrace.storage.log.embedded.log import EmbeddedBroker
from headrace.testing import World

obstore: Any = pytest.importorskip("obstore", reason="install `headrace[objects]`")

OWN = "_app.read.objects.0"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    if importlib.util.find_spec("moto") is None:
        absent("`moto` is not installed")
    from moto.server import ThreadedMotoServer

    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    yield f"http://127.0.0.1:{moto.get_host_and_port()[1]}"
    moto.stop()


@pytest.fixture(params=["s3", "file"])
def trigger(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Objects:
    if request.param == "file":
        folder = tmp_path / "objects" / "in"
        folder.mkdir(parents=True)
        return Objects(folder.as_uri(), glob="*.csv", poll=0.05)
    for name, value in AWS.items():
        monkeypatch.setenv(name, value)
    server: str = request.getfixturevalue("server")
    _create_bucket(server, request.node.name)
    options = {"aws_endpoint": server, "allow_http": "true", "aws_region": "eu-central-1"}
    bucket = _bucket(request.node.name)
    return Objects(f"s3://{bucket}/in", glob="*.csv", poll=0.05, options=options)


def _bucket(test: str) -> str:
    return "b-" + "".join(letter for letter in test.lower() if letter.isalnum())[-50:]


def _create_bucket(server: str, test: str) -> None:
    from urllib.request import Request, urlopen

    with urlopen(Request(f"{server}/{_bucket(test)}", method="PUT")) as answer:
        assert answer.status == 200


@asynccontextmanager
async def fed(folder: Path, trigger: Objects | Sftp) -> AsyncIterator[EmbeddedBroker]:
    """A source at work on a store of its own; what it says is on the log."""
    clock = SystemClock()
    storage = await SqliteStorage.open(folder, clock=clock)
    failures: list[BaseException] = []
    tasks = Tasks(lambda name, error: failures.append(error))
    broker = EmbeddedBroker(storage, clock=clock, tasks=tasks)
    await broker.declare(StreamSpec(name=OWN, owner="app"))
    source = FilesSource(trigger, clock)
    tasks.start(source.run(SourceAppender(storage, broker, storage.apply, stream=OWN)), name="feed")
    try:
        yield broker
    finally:
        await tasks.close()
        await broker.close()
        await storage.close()
    assert failures == []


async def told(broker: EmbeddedBroker, count: int) -> list[str]:
    clock = SystemClock()
    deadline = clock.monotonic() + 10
    while (await broker.extent(OWN, 0)).high < count:
        assert clock.monotonic() < deadline, "it did not come"
        await clock.sleep(0.02)
    await clock.sleep(0.2)
    values: list[dict[str, Any]] = [
        json.loads(event.value)
        for chunk in await broker.fetch(OWN, 0, 0, events=1_000, size=1 << 20)
        for event in chunk.events()
    ]
    return [f"{value['event']} {value['name']} {value['size']}" for value in values]


async def test_every_version_of_an_object_is_told_once_across_restarts(
    trigger: Objects, tmp_path: Path
) -> None:
    store: Any = FilesSource(trigger, SystemClock())._folder._store  # type: ignore[attr-defined]
    data = tmp_path / "data"
    data.mkdir()
    await obstore.put_async(store, "a.csv", b"1")
    await obstore.put_async(store, "deep/b.csv", b"12")
    await obstore.put_async(store, "notes.txt", b"not meant")
    async with fed(data, trigger) as broker:
        assert await told(broker, 2) == ["created a.csv 1", "created deep/b.csv 2"]
    await obstore.put_async(store, "a.csv", b"123")
    await obstore.delete_async(store, "deep/b.csv")
    async with fed(data, trigger) as broker:
        assert (await told(broker, 4))[2:] == ["modified a.csv 3", "deleted deep/b.csv None"]
        await obstore.put_async(store, "c.csv", b"")
        assert (await told(broker, 5))[4:] == ["created c.csv 0"]


async def test_an_object_whose_name_nobody_can_read_is_named_with_the_fix(
    server: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    from urllib.request import Request, urlopen

    for name, value in AWS.items():
        monkeypatch.setenv(name, value)
    bucket = _bucket(request.node.name)
    for path in (bucket, f"{bucket}/in//a.csv"):
        await asyncio.to_thread(urlopen, Request(f"{server}/{path}", data=b"1", method="PUT"))
    options = {"aws_endpoint": server, "allow_http": "true", "aws_region": "eu-central-1"}
    store = ObjectStore(Objects(f"s3://{bucket}/in", options=options))
    with pytest.raises(Unavailable, match=r"in//a.csv.* rename the object"):
        await store.look()


async def test_a_store_that_is_away_is_no_empty_store(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in AWS.items():
        monkeypatch.setenv(name, value)
    options = {"aws_endpoint": "http://127.0.0.1:9", "allow_http": "true", "aws_region": "x"}
    source = FilesSource(Objects("s3://bucket/in", options=options), SystemClock())
    with pytest.raises(Unavailable, match=r"`s3://bucket/in` cannot be listed"):
        await source._folder.look()


@pytest.mark.parametrize("url", ["bucket/in", "s3://key:secret@bucket/in"])
def test_what_is_no_store_is_refused_where_it_is_written(url: str) -> None:
    with pytest.raises(Misuse, match="without credentials"):
        Objects(url)


@pytest.mark.parametrize(
    "trigger", [Objects("zz://bucket"), Objects("s3://bucket", options={"colour": "red"})]
)
def test_a_store_or_option_nobody_knows_is_refused(trigger: Objects) -> None:
    with pytest.raises(Misuse, match="cannot work"):
        FilesSource(trigger, SystemClock())


def test_on_virtual_time_no_store_is_asked() -> None:
    app = App("shelf")

    @app.function(Objects("s3://bucket/in"))
    def read(event: Event[Any]) -> None: ...

    with World(app) as world:
        world.advance("1h")
        assert "objects s3://bucket/in" in world.map()
