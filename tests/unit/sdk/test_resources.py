"""Resources: opened once per instance at first use, closed at its end, replaced in tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import assert_type

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

    async def later() -> int:
        return 1

    def nothing() -> Iterator[int]:
        yield from ()

    with pytest.raises(Misuse, match="`later` is asynchronous"):
        app.resource(later)
    with pytest.raises(Misuse, match="not `3`"):
        app.resource(3)  # type: ignore[call-overload]  # the point of it
    none = app.resource(nothing)
    app.lend(str)
    with pytest.raises(Misuse, match="yielded nothing"):
        _ = none.value
