"""Answers are what their routes declare, in a `World`; and paths and queries are read as types say."""

from __future__ import annotations

import datetime
import decimal
import enum
import re
from collections.abc import Iterator
from typing import Any, Literal

import msgspec
import pytest
from openapi_spec_validator import validate

from headrace import App, Context, Event, Http, Reply, Request
from headrace.errors import Misuse, Problem, Unavailable
from headrace.http.pipeline.answer_types import DeclaredAnswer
from headrace.testing import World
from headrace.topology.openapi import document

app = App("shop")


class Order(msgspec.Struct):
    id: int
    item: str


class Gone(msgspec.Struct):
    since: datetime.date


class Which(msgspec.Struct):
    id: int
    wrong: str = ""


@app.function(Http("GET", "/orders/{id:int}", responses={404: Problem, 410: Gone, 204: None}))
def order(event: Event[Which], context: Context) -> Order | Reply:
    context.state.put("asked", event.value.id)
    match event.value.wrong:
        case "type":
            return Order(id="secret", item="tea")  # type: ignore[arg-type]  # on purpose
        case "status":
            return Reply(Problem("a teapot"), status=418)
        case "body":
            return Reply({"secret": 1}, status=410)
        case "empty":
            return Reply({"secret": 1}, status=204)
        case "none":
            return Reply(status=204)
        case "gone":
            return Reply(Gone(datetime.date(2026, 1, 31)), status=410)
        case "unknown":
            return Reply(Problem("there is no order 9"), status=404)
        case _:
            return Order(id=event.value.id, item="tea")


@app.function(Http("GET", "/lists"))
def orders(event: Event[Any]) -> Iterator[Order]:
    yield Order(1, "tea")
    yield Order(2, "tea")


@app.function(
    Http("GET", "/progress", mode="live", responses={200: Order, 201: Gone, 404: Problem})
)
def progress(event: Event[Any], context: Context) -> Iterator[Order | Reply]:
    """Answers in parts as its query says."""
    context.state.put("progressed", True)
    match Request.of(event).query.get("does", ""):
        case "first":
            yield Order(id="secret", item="tea")  # type: ignore[arg-type]  # on purpose
        case "second":
            try:
                yield Order(1, "tea")
                yield Order(id="secret", item="tea")  # type: ignore[arg-type]  # on purpose
            except Exception:  # noqa: BLE001 - whatever it does, it is a failed run
                yield Order(3, "tea")
        case "status":
            yield Reply(status=202)
        case "other":
            yield Reply(status=201)
            yield Gone(datetime.date(2026, 1, 31))  # type: ignore[misc]  # of its status
            yield Order(1, "tea")
        case "unknown":
            yield Reply(Problem("there is no progress"), status=404)
        case "nothing":
            return
        case _:
            yield Order(1, "tea")
            yield Order(2, "tea")


@app.function(Http("GET", "/replies"))
def replies(event: Event[Any]) -> Iterator[Order | Reply]:
    yield Reply(status=201)
    yield Order(1, "tea")


@app.function(Http("POST", "/free"))
def free(event: Event[Any]) -> Any:
    return event.value


@app.function(Http("POST", "/made", responses={201: Order}))
def made(event: Event[Order]) -> Reply:
    return Reply(event.value, status=201)


@app.function(Http("POST", "/either"))
def either(event: Event[Any]) -> Order | Gone | None:
    return event.value  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("query", "status", "value"),
    [
        ("", 200, {"id": 7, "item": "tea"}),
        ("?wrong=gone", 410, {"since": "2026-01-31"}),
        (
            "?wrong=unknown",
            404,
            {
                "detail": "there is no order 9",
                "code": "not-found",
                "title": "Not Found",
                "type": "about:blank",
                "status": 404,
            },
        ),
    ],
)
def test_an_answer_of_its_type_goes_out(query: str, status: int, value: object) -> None:
    with World(app) as world:
        found = world.ask("GET", f"/orders/7{query}")
        assert (found.status, found.body) == (status, value)
        assert world.state(order)["asked"] == 7


def test_a_problem_has_the_media_of_one() -> None:
    with World(app) as world:
        found = world.ask("GET", "/orders/7?wrong=unknown")
        assert found.headers["content-type"] == "application/problem+json"
        assert world.ask("GET", "/orders/7?wrong=none").status == 204


@pytest.mark.parametrize(
    ("wrong", "said"), [("type", "`/id`"), ("status", "418"), ("body", "since"), ("empty", "empty")]
)
def test_a_wrong_answer_is_an_error_that_does_not_leak_and_keeps_nothing(
    wrong: str, said: str
) -> None:
    with World(app) as world:
        found = world.ask("GET", f"/orders/7?wrong={wrong}")
        assert found.status == 500
        assert found.body["code"] == "call-failed"
        assert "cause" not in found.body
        assert "secret" not in str(found.body)
        assert "asked" not in world.state(order)
        (run,) = world.ask("GET", "/-/v1/invocations").body["invocations"]
        assert run["outcome"] == "failed"
        assert "WrongAnswer" in run["cause"]
        (line,) = world.ask("GET", "/-/v1/logs").body["logs"]
        assert line["level"] == "error"
        assert said in line["text"]


def test_lists_free_answers_and_choices_are_held_against_their_own_types() -> None:
    with World(app) as world:
        assert [each["id"] for each in world.ask("GET", "/lists").body] == [1, 2]
        assert world.ask("POST", "/free", [1]).body == [1]
        assert world.ask("POST", "/made", {"id": 1, "item": "tea"}).status == 201
        assert world.ask("POST", "/either", {"since": "2026-01-31"}).status == 200
        assert world.ask("POST", "/either", {"since": "soon"}).status == 500
        assert world.ask("POST", "/either").body is None


@pytest.mark.parametrize(
    ("does", "status", "body"),
    [
        ("", 200, b'{"id":1,"item":"tea"}\n{"id":2,"item":"tea"}\n'),
        ("nothing", 200, b""),
    ],
)
def test_parts_of_a_live_answer_that_are_of_their_type_go_out(
    does: str, status: int, body: bytes
) -> None:
    with World(app) as world:
        found = world.ask("GET", f"/progress?does={does}")
        assert (found.status, found.body) == (status, body)
        assert world.ask("GET", "/progress?does=unknown").status == 404
        assert world.state(progress)["progressed"]


@pytest.mark.parametrize(("does", "said"), [("first", "`/id`"), ("status", "202")])
def test_a_live_answer_that_begins_wrong_is_an_error_that_keeps_nothing(
    does: str, said: str
) -> None:
    with World(app) as world:
        found = world.ask("GET", f"/progress?does={does}")
        assert (found.status, found.body["code"]) == (500, "call-failed")
        assert "secret" not in str(found.body)
        _assert_logged(world, said)


@pytest.mark.parametrize(("does", "said"), [("second", "`/id`"), ("other", "`/since`|since")])
def test_a_live_answer_breaks_off_before_a_part_of_another_type(does: str, said: str) -> None:
    with World(app) as world:
        with pytest.raises(Unavailable, match="broke off"):
            world.ask("GET", f"/progress?does={does}")
        _assert_logged(world, said)


def _assert_logged(world: World, said: str) -> None:
    assert "progressed" not in world.state(progress)
    (run,) = world.ask("GET", "/-/v1/invocations").body["invocations"]
    assert (run["outcome"], "WrongAnswer" in run["cause"]) == ("failed", True)
    (line,) = world.ask("GET", "/-/v1/logs").body["logs"]
    assert re.search(said, line["text"])


def test_a_list_may_begin_with_a_reply_where_its_annotation_says_so() -> None:
    with World(app) as world:
        found = world.ask("GET", "/replies")
        assert (found.status, found.body) == (201, [{"id": 1, "item": "tea"}])


def test_a_live_answer_that_is_sent_whole_is_held_against_the_type_of_its_parts() -> None:
    route = app.functions["shop.progress"].spec.triggers[0]
    assert isinstance(route, Http)
    judge = DeclaredAnswer(route)
    assert judge(b'[{"id":1,"item":"tea"},{"id":2,"item":"tea"}]') == ""
    assert judge(b"[]") == ""
    assert "`/id`" in judge(b'[{"id":1,"item":"tea"},{"id":"two","item":"tea"}]')


def test_the_document_knows_every_answer() -> None:
    found = document([app.spec()])
    validate(found)
    paths, schemas = found["paths"], found["components"]["schemas"]
    said = paths["/orders/{id}"]["get"]["responses"]
    assert set(said) == {"200", "204", "404", "410", "default"}
    assert "content" not in said["204"]
    assert set(said["404"]["content"]) == {"application/problem+json"}
    parts = paths["/progress"]["get"]["responses"]
    assert set(parts) == {"200", "201", "404", "default"}
    lines = parts["200"]["content"]["application/x-ndjson"]
    assert lines["x-item-schema"] == {"$ref": "#/components/schemas/Order"}
    assert set(parts["404"]["content"]) == {"application/problem+json"}
    (order_schema,) = [said["200"]["content"]["application/json"]["schema"]]
    assert "Order" in order_schema["$ref"]
    assert schemas["Gone"]["properties"]["since"]["format"] == "date"
    assert set(paths["/made"]["post"]["responses"]) == {"201", "default"}
    listed = paths["/lists"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert listed["type"] == "array"


def test_responses_that_cannot_be_are_refused() -> None:
    for responses in ({}, {99: Order}, {"201": Order}, [Order]):
        with pytest.raises(Misuse, match="responses="):
            Http("GET", "/x", responses=responses)
    with pytest.raises(Misuse, match="sync"):
        Http("POST", "/x", mode="async", responses={201: Order})

    class Odd:
        def __init__(self, other: Any) -> None: ...

    def handler(event: Event[Any]) -> None: ...

    with pytest.raises(Misuse, match="at 201"):
        App("odd").function(Http("GET", "/x", responses={201: Odd}))(handler)


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Place(msgspec.Struct):
    level: Level
    name: Literal["tea", 5]
    either: int | str
    day: datetime.date
    price: decimal.Decimal
    at: datetime.datetime | None = None
    sizes: list[Level] = []


typed = App("typed")


@typed.function(Http("GET", "/in-path/{level}/{name}/{either}/{day}/{price}"))
def in_path(event: Event[Place]) -> list[str]:
    value = event.value
    return [repr(each) for each in (value.level, value.name, value.either, value.day, value.price)]


@typed.function(Http("GET", "/in-query"))
def in_query(event: Event[Place]) -> list[str]:
    return in_path(event)


@typed.function(Http("POST", "/kinds/{day:date}/{at:datetime}/{price:decimal}"))
def kinds(event: Event[Any]) -> None: ...


SEEN = ["<Level.HIGH: 2>", "5", "7", "datetime.date(2026, 1, 31)", "Decimal('1.50')"]


@pytest.mark.parametrize(
    "path",
    [
        "/in-path/2/5/7/2026-01-31/1.50",
        "/in-query?level=2&name=5&either=7&day=2026-01-31&price=1.50",
    ],
)
def test_paths_and_queries_are_read_as_the_types_say(path: str) -> None:
    with World(typed) as world:
        assert world.ask("GET", path).body == SEEN


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/in-path/3/5/7/2026-01-31/1.50", "/level"),
        ("/in-path/2/coffee/7/2026-01-31/1.50", "/name"),
        ("/in-path/2/5/7/2026-02-31/1.50", "/day"),
        ("/in-path/2/5/7/2026-01-31/dear", "/price"),
    ],
)
def test_what_is_not_of_the_type_is_named(path: str, place: str) -> None:
    with World(typed) as world:
        found = world.ask("GET", path)
        assert (found.status, found.body["errors"][0]["path"]) == (400, place)


def test_a_query_cannot_pretend_to_be_anothers_path() -> None:
    with World(typed) as world:
        found = world.ask("GET", "/in-path/2/5/7/2026-01-31/1.50?level=1&price=2")
        assert found.body == SEEN


def test_paths_have_dates_times_and_decimals() -> None:
    with World(typed) as world:
        good = "/kinds/2026-01-31/2026-01-31T12:00:00Z/1.50"
        assert world.ask("POST", good).status == 200
        assert world.ask("POST", good.replace("01-31/", "02-31/")).status == 400
        assert world.ask("POST", good.replace("1.50", "x")).status == 400


def test_the_document_shows_a_path_as_the_type_says() -> None:
    found = document([typed.spec()])
    validate(found)
    (said, *_) = found["paths"]["/in-path/{level}/{name}/{either}/{day}/{price}"]["get"][
        "parameters"
    ]
    assert said["in"] == "path"
    assert said["schema"] != {"type": "string"}
