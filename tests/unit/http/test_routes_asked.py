"""Routes as callers meet them, in a `World`: what is taken, and what the handler gets."""

from __future__ import annotations

import enum
from typing import Any, Literal

import msgspec
import pytest

from headrace import App, Event, Http
from headrace.errors import Misuse
from headrace.testing import World

app = App("shop")


@app.function(Http("POST", "/raw"))
def raw(event: Event[bytes]) -> str:
    return repr(event.value)


@app.function(Http("POST", "/text"))
def text(event: Event[str]) -> str:
    return repr(event.value)


class Size(enum.IntEnum):
    SMALL = 1
    LARGE = 2


class Wish(msgspec.Struct):
    size: Size = Size.SMALL
    level: Literal[1, 2] = 1
    count: int = 0
    weight: float = 0.0


@app.function(Http("GET", "/wishes"))
def read(event: Event[Wish]) -> Any:
    return msgspec.to_builtins(event.value)


@app.function(Http("POST", "/wishes"))
def now(event: Event[Wish]) -> Any:
    return msgspec.to_builtins(event.value)


@app.function(Http("POST", "/later", mode="async", body=Wish))
def later(event: Event[Wish]) -> None: ...


@app.function(Http("GET", "/numbers/{whole:int}/{real:float}"))
def numbers(event: Event[Any]) -> Any:
    return [event.value["whole"], event.value["real"]]


@pytest.mark.parametrize(("path", "seen"), [("/raw", "b''"), ("/text", "''")])
def test_an_empty_body_of_bytes_or_text_is_empty(path: str, seen: str) -> None:
    with World(app) as world:
        answer = world.ask("POST", path, b"")
        assert (answer.status, answer.body) == (200, seen)


@pytest.mark.parametrize(
    ("query", "name", "value"),
    [
        ("size=2", "size", 2),
        ("level=2", "level", 2),
        ("count=1234567890123456789", "count", 1234567890123456789),
        ("count=18446744073709551615", "count", 18446744073709551615),
        ("count=-9223372036854775808", "count", -9223372036854775808),
        ("weight=1234567890123456789012", "weight", 1234567890123456789012.0),
        ("weight=1e300", "weight", 1e300),
    ],
)
def test_a_querys_numbers_are_taken(query: str, name: str, value: Any) -> None:
    with World(app) as world:
        answer = world.ask("GET", f"/wishes?{query}")
        assert (answer.status, answer.body[name]) == (200, value)


@pytest.mark.parametrize(
    "query",
    [
        "size=3",
        "level=true",
        "count=18446744073709551616",
        "count=1.0",
        "weight=nan",
        "weight=inf",
        "weight=1e999",
        "weight=1e9999",
    ],
)
def test_a_query_of_another_type_is_refused(query: str) -> None:
    with World(app) as world:
        assert world.ask("GET", f"/wishes?{query}").status == 400


def test_numbers_in_a_path_have_64_bits() -> None:
    with World(app) as world:
        answer = world.ask("GET", "/numbers/9223372036854775807/1e5")
        assert answer.body == [9223372036854775807, 1e5]
        for wrong in ("18446744073709551616/1", "1/nan", "1/1e999", "1.0/1", "1/Infinity"):
            assert world.ask("GET", f"/numbers/{wrong}").status == 400


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"count": 1, "size": 2, "level": 1, "weight": 1}', 2),
        (b'{"weight": 1.0}', 2),
        (b'{"count": 1.0}', 4),
        (b'{"count": 1e0}', 4),
        (b'{"count": true}', 4),
        (b'{"level": true}', 4),
        (b'{"size": true}', 4),
        (b'{"size": 1.0}', 4),
        (b'{"weight": NaN}', 4),
        (b'{"weight": 1e400}', 4),
    ],
)
def test_every_mode_of_a_route_takes_the_same_bodies(body: bytes, status: int) -> None:
    with World(app) as world:
        for path in ("/wishes", "/later"):
            assert world.ask("POST", path, body).status // 100 == status


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("of", [bytes, str, int, list[int]])
def test_a_route_without_bodies_of_what_no_query_can_be_is_refused(method: str, of: Any) -> None:
    def handler(event: Any) -> None: ...

    handler.__annotations__["event"] = Event[of]
    with pytest.raises(Misuse, match="has no body"):
        App("shop").function(Http(method, "/x"))(handler)
