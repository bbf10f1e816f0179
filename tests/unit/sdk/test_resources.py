"""Resources: opened once per instance at first use, closed at its end, replaced in tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Self, assert_type

import pytest

from headrace import App, Event, Resource
from headrace.model.errors import Misuse
from headrace.testing import World

seen: list[str] = []


class Database:
    def __init__(self, name: str = "real") -> None:
        self.name = name
        self.rows: list[int] = []

    def close(self) -> None:
        seen.append(f"close {self.name}")


def app_of(opens: object = Database) -> tuple[App, Resource[Database]]:
    seen.clear()
    app = App("shop")
    orders = app.stream("orders")
    db: Resource[Database] = app.resource(opens)  # type: ignore[call-overload]  # any form of it

    @app.function(orders, name="keep")
    def keep(event: Event[int]) -> None:
        db.value.rows.append(event.value)
        seen.append(f"{db.value.name} {len(db.value.rows)}")

    return app, db


def by_yield() -> Iterator[Database]:
    yield Database("yielded")
    seen.append("close yielded")


@contextmanager
def by_context() -> Iterator[Database]:
    yield Database("entered")
    seen.append("close entered")


@pytest.mark.parametrize(
    ("opens", "name"), [(Database, "real"), (by_yield, "yielded"), (by_context, "entered")]
)
def test_it_is_opened_once_and_closed_at_the_end(opens: object, name: str) -> None:
    app, _ = app_of(opens)
    for _ in range(2):
        seen.clear()
        with World(app) as world:
            world.publish("orders", 1)
            world.publish("orders", 2)
            world.run_until_idle()
        assert seen == [f"{name} 1", f"{name} 2", f"close {name}"]


def test_what_nobody_uses_is_not_opened() -> None:
    app, _ = app_of()
    with World(app):
        pass
    assert seen == []


def test_a_test_puts_another_in_its_place() -> None:
    app, db = app_of()
    fake = Database("fake")
    with World(app, resources={db: fake}) as world:
        world.publish("orders", 1)
        world.run_until_idle()
    assert (seen, fake.rows) == (["fake 1"], [1])
    with db.override(fake):
        assert db.value is fake
    with pytest.raises(Misuse, match="no instance runs"):
        _ = db.value


def test_nothing_is_opened_while_the_module_is_imported() -> None:
    _, db = app_of()
    with pytest.raises(Misuse, match=r"`shop\.Database` cannot be opened here.*World"):
        _ = db.value


def test_what_was_opened_is_closed_last_one_first() -> None:
    app, _ = app_of()
    first, second = app.resource(by_yield), app.resource(by_context)
    assert_type(first, Resource[Database])
    assert_type(second, Resource[Database])
    assert_type(app.resource(Database), Resource[Database])

    @app.init
    def connect() -> None:
        assert (first.value.name, second.value.name) == ("yielded", "entered")

    with World(app) as world:
        world.publish("orders", 1)
        world.run_until_idle()
    assert seen == ["real 1", "close real", "close entered", "close yielded"]


def test_what_cannot_be_a_resource_is_refused() -> None:
    app = App("shop")

    def nothing() -> Iterator[int]:
        yield from ()

    with pytest.raises(Misuse, match="not `3`"):
        app.resource(3)  # type: ignore[call-overload]  # the point of it
    none = app.resource(nothing)
    app.lend(str)
    with pytest.raises(Misuse, match="yielded nothing"):
        _ = none.value


class Client:
    """Has an asynchronous end, as most drivers with an event loop have."""

    def __init__(self, name: str = "real") -> None:
        self.name = name

    async def aclose(self) -> None:
        await asyncio.sleep(0)
        seen.append(f"close {self.name}")


class Session:
    """Is entered, as an HTTP client is."""

    name = "entered"

    async def __aenter__(self) -> Self:
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        seen.append("close entered")


async def awaited() -> Client:
    await asyncio.sleep(0)
    return Client("awaited")


async def yielded() -> AsyncIterator[Client]:
    await asyncio.sleep(0)
    yield Client("yielded")
    seen.append("close yielded")


@asynccontextmanager
async def managed() -> AsyncIterator[Client]:
    yield Client("managed")
    seen.append("close managed")


def asynchronous(opens: object) -> tuple[App, Resource[Any]]:
    seen.clear()
    app = App("shop")
    orders = app.stream("orders")
    client: Resource[Any] = app.resource(opens)  # type: ignore[call-overload]  # any form of it

    @app.function(orders, name="keep")
    async def keep(event: Event[int]) -> None:
        for found in await asyncio.gather(*(_client(client) for _ in range(3))):
            assert found is client.value
        seen.append(client.value.name)

    return app, client


async def _client(client: Resource[Any]) -> Any:
    return await client


@pytest.mark.parametrize(
    ("opens", "name"),
    [
        (awaited, "awaited"),
        (yielded, "yielded"),
        (managed, "managed"),
        (Client, "real"),
        (Session, "entered"),
    ],
)
def test_an_asynchronous_one_is_opened_once_and_closed_at_the_end(opens: object, name: str) -> None:
    app, _ = asynchronous(opens)
    for _ in range(2):
        seen.clear()
        with World(app) as world:
            world.publish("orders", 1)
            world.publish("orders", 2)
            world.run_until_idle()
            assert not world.dead_letters()
        assert seen == [name, name, f"close {name}"]


def test_type_checkers_know_what_awaiting_gives() -> None:
    app = App("shop")
    assert_type(app.resource(awaited), Resource[Client])
    assert_type(app.resource(yielded), Resource[Client])
    assert_type(app.resource(managed), Resource[Client])
    assert_type(app.resource(Session), Resource[Session])


@pytest.mark.parametrize("opens", [awaited, yielded, managed, Session])
def test_before_anybody_has_awaited_it_its_value_says_what_to_write(opens: object) -> None:
    app, client = asynchronous(opens)
    app.lend(str)
    with pytest.raises(Misuse, match=r"needs an event loop to be opened; `await`"):
        _ = client.value


def test_hooks_may_be_asynchronous_and_plain_handlers_use_what_they_opened() -> None:
    seen.clear()
    app = App("shop")
    client = app.resource(awaited)

    @app.init
    async def connect() -> None:
        await client
        seen.append("init")

    @app.on_stop
    async def leave() -> None:
        await asyncio.sleep(0)
        seen.append(f"stop {client.value.name}")

    @app.function(app.stream("orders"))
    def keep(event: Event[int]) -> None:
        seen.append(client.value.name)

    with World(app) as world:
        world.publish("orders", 1)
        world.run_until_idle()
    assert seen == ["init", "awaited", "stop awaited", "close awaited"]


def test_a_stand_in_is_awaited_too() -> None:
    app, client = asynchronous(awaited)
    with World(app, resources={client: Client("fake")}) as world:
        world.publish("orders", 1)
        world.run_until_idle()
    assert seen == ["fake"]


def test_a_world_calls_the_stop_hooks_with_its_settings_and_stand_ins() -> None:
    app, db = app_of()
    rate = app.setting("RATE", int)

    @app.on_stop
    def leave() -> None:
        seen.append(f"stop {db.value.name} {rate.value}")

    with World(app, resources={db: Database("fake")}, settings={"RATE": 3}) as world:
        world.publish("orders", 1)
        world.run_until_idle()
    assert seen == ["fake 1", "stop fake 3"]


def test_what_an_instance_that_was_killed_left_open_is_closed_before_the_next_opens() -> None:
    app, _ = app_of(by_yield)

    @app.on_stop
    def leave() -> None:
        seen.append("stop")

    with World(app) as world:
        world.publish("orders", 1)
        world.run_until_idle()
        world.kill_instance("shop.keep")
        world.publish("orders", 2)
        world.run_until_idle()
    assert seen == ["yielded 1", "close yielded", "yielded 1", "stop", "close yielded"]


def test_what_opening_raises_names_the_resource_once() -> None:
    refused = ConnectionError("no database")

    def opens() -> Database:
        raise refused

    app, _ = app_of(opens)
    with World(app) as world:
        for number in range(3):
            world.publish("orders", number)
        world.run_until_idle()
        messages = {letter.cause.message for letter in world.dead_letters()}
    assert messages == {"no database (while `shop.opens` was opened)"}
