"""Both clients against a real node: the same requests, the same values, the same errors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace.client import AsyncClient, Client, Message
from headrace.model.errors import HeadraceError, Invalid, Unavailable, Unknown
from headrace.testing import serving
from headrace.testing.served import Served

APP = """
from typing import Any
from headrace import App, Event, Retry

app = App("shop")
orders = app.stream("orders", partitions=1)
jobs = app.queue("jobs")


@app.function(orders, retry=Retry(attempts=1))
def sell(event: Event[Any]) -> None:
    if event.value.get("item") == "cup":
        raise ValueError("no cups")


@app.function()
def double(event: Event[Any]) -> int:
    return 2 * event.value
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("clients")
    (folder / "app.py").write_text(APP)
    with serving(folder / "app.py", folder / "data") as found:
        yield found


class Awaiting:
    """An `AsyncClient` that is called as a `Client` is."""

    def __init__(self, client: AsyncClient, runner: asyncio.Runner) -> None:
        self._client, self._runner = client, runner

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def call(*args: Any, **options: Any) -> Any:
            return await getattr(self._client, name)(*args, **options)

        return lambda *args, **options: self._runner.run(call(*args, **options))


@pytest.fixture(params=["sync", "async"])
def client(node: Served, request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param == "sync":
        with Client(data=node.data) as found:
            yield found
        return
    with asyncio.Runner() as runner:
        found_async = AsyncClient(data=node.data)
        yield Awaiting(found_async, runner)
        found_async.close()


def test_events_are_published_alone_and_together(client: Any) -> None:
    alone = client.publish("orders", {"item": "tea"}, key="k", idempotency_key=f"{client}")
    assert (len(alone.positions), alone.duplicates) == (1, 0)
    again = client.publish("orders", {"item": "tea"}, key="k", idempotency_key=f"{client}")
    assert (again.positions, again.duplicates) == ([None], 1)
    together = client.publish_many(
        "orders", [Message(value={"item": "pot"}, key=str(n)) for n in range(3)]
    )
    assert len(together.positions) == 3
    _, partition, offset = together.positions[0].split("/")
    page = client.get("streams", "orders", "records", partition=partition, offset=offset)
    assert page["records"][0]["value"] == {"item": "pot"}


def test_a_function_is_called(client: Any) -> None:
    assert client.call("shop.double", 21, timeout="5s") == 42
    with pytest.raises(HeadraceError):
        client.call("shop.double", None)


def test_messages_are_sent_received_and_settled(client: Any) -> None:
    client.send("jobs", {"n": 1}, key="k")
    (message,) = client.receive("jobs", wait="5s", visibility="1m")
    assert (message.value, message.key, message.attempt) == ({"n": 1}, "k", 1)
    assert client.extend("jobs", message, duration="2m").settled == 1
    assert client.nack("jobs", message, reason="later").settled == 1
    (again,) = client.receive("jobs", wait="5s")
    assert client.ack("jobs", message).stale == [message.receipt]
    assert client.ack("jobs", again).settled == 1
    assert client.send("jobs", {"n": 2}, delay="1h", id="cart/7").delayed == 1
    assert client.cancel("jobs", "cart/7", "cart/8") == ["cart/7"]


def test_dead_letters_are_read_redriven_and_discarded(client: Any) -> None:
    (position,) = client.publish("orders", {"item": "cup"}).positions
    letters = wait_for(client, position)
    (letter,) = (each for each in letters if each.position == position)
    assert (letter.function, letter.cause.kind, letter.attempts) == ("shop.sell", "ValueError", 1)
    assert letter.event.value == {"item": "cup"}
    assert client.redrive("shop.sell", letter) == 1
    wait_for(client, position)
    assert client.discard("shop.sell", position) == 1
    assert any(run.outcome == "failed" for run in client.invocations("shop.sell", limit=50))


def wait_for(client: Any, position: str) -> list[Any]:
    """Wait until the event is a dead letter; those there are then."""
    for _ in range(500):
        letters: list[Any] = client.dead_letters("shop.sell").letters
        if any(each.position == position for each in letters):
            return letters
        client.get("streams", "jobs", "records", wait=0.02, **{"from": "latest"})
    raise AssertionError(f"`{position}` is not a dead letter")


def test_what_the_node_refuses_is_an_error_of_the_family(client: Any) -> None:
    with pytest.raises(Unknown, match="nowhere"):
        client.publish("nowhere", 1)
    with pytest.raises(Invalid, match="query parameter `functoin`"):
        client.get("lag", functoin="shop.sell")


def test_many_tasks_share_a_client(node: Served) -> None:
    async def ask() -> list[Any]:
        async with AsyncClient(node.api_url, token=node.key) as client:
            return await asyncio.gather(*(client.call("shop.double", n) for n in range(30)))

    assert asyncio.run(ask()) == [2 * n for n in range(30)]


def test_a_node_that_is_not_there_is_unavailable() -> None:
    async def ask() -> None:
        async with AsyncClient("http://127.0.0.1:9", timeout="5s") as client:
            await client.get("lag")

    with pytest.raises(Unavailable, match=r"no node answers at `http://127\.0\.0\.1:9`"):
        asyncio.run(ask())
    with (
        pytest.raises(Unavailable, match=r"no node answers at `http://127\.0\.0\.1:9`"),
        Client("http://127.0.0.1:9") as client,
    ):
        client.get("lag")


def test_the_node_of_a_test_has_a_client(node: Served, tmp_path: Path) -> None:
    with node.client() as client:
        assert client.call("shop.double", 4) == 8
