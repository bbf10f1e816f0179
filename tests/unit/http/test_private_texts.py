"""Texts that may hold private data are shown to those who may read it: in every list, to every kind of client."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from headrace import App, Event
from headrace.environment.supervised_task import TaskFailure
from headrace.http.dependencies import Health
from headrace.runtime.instance_views import FailedStart
from headrace.sources import SqlTable
from headrace.testing import World
from headrace.testing.http_client import HttpClient
from headrace.testing.served import ServedResponse

SECRET = "card 4711 is refused"

shop = App("shop")
inner = shop.stream("inner", private=True)
jobs = shop.queue("jobs", private=True)


@shop.function(inner)
def refuse(event: Event[Any]) -> None: ...


@shop.function(SqlTable("sqlite:shop.db", "cards"))
def watch(event: Event[Any]) -> None: ...


other = App("other")
outer = other.stream("outer")


@other.function(outer)
def count(event: Event[Any]) -> None: ...


READERS = {
    "read": False,
    "read, read:other": False,
    "read, read:shop": True,
    "read, read*": True,
    "admin": True,
}
"""Whether a token with these scopes may see what is private to `shop`."""
PAGES = (
    "/-/v1/lag",
    "/-/v1/lag?function=shop.refuse",
    "/-/v1/sources",
    "/-/v1/map",
    "/-/v1/functions/shop.refuse",
    "/console",
    "/console/functions/shop.watch",
    "/console/functions/shop.refuse",
    "/console/triggers",
)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    failure = TaskFailure(SECRET, failures=3, since=1, halted=False)
    with World(shop, other) as found, pytest.MonkeyPatch.context() as patched:
        supervisor = found._lives.node.services.supervisor
        patched.setattr(supervisor.sources, "trouble", lambda stream: failure)
        halted = supervisor.halted
        halted["shop.refuse", ("inner",), 0] = SECRET
        halted["other.count", ("outer",), 0] = "anybody may know"
        yield found


def token_for(world: World, scopes: str) -> str:
    wish = {"name": "reader", "scopes": scopes.split(", ")}
    text: str = world.ask("POST", "/-/v1/tokens", wish).body["token"]
    return f"Bearer {text}"


def test_somewhere_the_operator_sees_why(world: World) -> None:
    shown = {path for path in PAGES if SECRET in str(world.ask("GET", path).body)}
    assert shown == {*PAGES}


@pytest.mark.parametrize(("scopes", "may"), READERS.items())
@pytest.mark.parametrize("path", PAGES)
def test_errors_of_private_functions_are_for_readers_of_their_app(
    world: World, path: str, scopes: str, may: bool
) -> None:
    answer = world.ask("GET", path, authorization=token_for(world, scopes))
    assert answer.status == 200
    assert (SECRET in str(answer.body)) == may


def test_why_a_public_function_halts_is_for_everybody_who_reads(world: World) -> None:
    answer = world.ask("GET", "/-/v1/lag", authorization=token_for(world, "read"))
    states = {row["function"]: row["state"] for row in answer.body["lag"]}
    assert states["other.count"] == "halted: anybody may know"
    assert states["shop.refuse"] == "halted"


def readyz(world: World, **headers: str) -> ServedResponse:
    health = Health(ready=True, checks={"instances of shop.refuse": SECRET})
    services = replace(world._lives.node.services, health=lambda: health)
    found: ServedResponse = world._drive(
        HttpClient().answer(services, "GET", "/readyz", None, headers)
    )
    return found


def test_readyz_names_what_fails_to_everybody_and_says_why_to_readers_of_every_app(
    world: World,
) -> None:
    assert readyz(world).body["checks"] == {"instances of shop.refuse": SECRET}
    may = {
        scopes: readyz(world, authorization=token_for(world, scopes)).body["checks"]
        for scopes in ("read", "read, read:shop", "read, read*", "admin")
    }
    named, why = ({"instances of shop.refuse": each} for each in ("failing", SECRET))
    assert may == {"read": named, "read, read:shop": named, "read, read*": why, "admin": why}
    for nothing in ("", "Bearer hr_unknown"):
        assert readyz(world, authorization=nothing).body["checks"] == named


@pytest.mark.parametrize("path", ["/-/v1/functions/shop.watch", "/console/functions/shop.watch"])
def test_why_no_instance_starts_is_for_readers_of_its_app(world: World, path: str) -> None:
    why = "OSError: the key 0815 is refused"

    def shown(scopes: str) -> str:
        services = replace(
            world._lives.node.services, failed_start=lambda _: FailedStart(why, 1, False)
        )
        headers = {"authorization": token_for(world, scopes)}
        answer: ServedResponse = world._drive(
            HttpClient().answer(services, "GET", path, None, headers)
        )
        assert answer.status == 200
        return str(answer.body)

    assert why in shown("read, read:shop")
    assert why not in shown("read")


def test_messages_of_a_private_queue_are_received_by_readers_of_its_app(world: World) -> None:
    def received(*scopes: str) -> int:
        shown = token_for(world, ", ".join(scopes))
        answer = world.ask("POST", "/-/v1/queues/jobs/receive", {}, authorization=shown)
        return int(answer.status)

    assert received("queue:jobs") == 403
    assert received("queue:jobs", "read:other") == 403
    assert received("queue:jobs", "read:shop") == 200
    assert received("admin") == 200
    assert world.ask("POST", "/-/v1/queues/jobs/receive", {}, authorization="").status == 401
