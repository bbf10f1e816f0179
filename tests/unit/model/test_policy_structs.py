"""Values that authors write: whatever is given, they hold what the platform takes, or are refused in words."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from headrace import (
    App,
    Bearer,
    Breaker,
    DeadLetter,
    Debounce,
    Http,
    Retry,
    Scaling,
    Throttle,
    Webhook,
)
from headrace.errors import Misuse
from headrace.model.durations import Seconds
from headrace.model.policy import FleetLimits
from headrace.model.policy_struct import PolicyStruct
from headrace.model.sizes import Bytes
from headrace.model.triggers import bus, debezium, http
from headrace.sdk import windows
from headrace.testing import World, context
from headrace.webhooks import GitHub

REQUIRED: dict[str, dict[str, Any]] = {
    "Throttle": {"limit": 1},
    "Sample": {"limit": 1},
    "Debounce": {"seconds": 1},
    "Secret": {"name": "HOOK"},
    "Bearer": {"scope": "orders:write"},
    "Cors": {"origins": "https://shop.example"},
    "PerClient": {"requests": 1},
    "Legacy": {"upstream": "http://old"},
    "Http": {"method": "POST", "path": "/x"},
    "Webhook": {"path": "/x", "signature": GitHub("HOOK")},
    "Cron": {"expression": "* * * * *"},
    "Every": {"period": 1},
    "At": {"when": "2026-12-24T18:00"},
    "Files": {"path": "inbox"},
    "Objects": {"url": "s3://bucket"},
    "Sftp": {"url": "sftp://user@host/folder"},
    "Silence": {"stream": "orders", "after": 1},
    "Missing": {"left": "orders", "right": "payments", "within": 1},
    "RedisStream": {"stream": "orders"},
    "NatsStream": {"stream": "orders"},
    "MqttTopic": {"topic": "orders"},
    "RabbitQueue": {"queue": "orders"},
    "SqsQueue": {"queue": "orders"},
    "KinesisStream": {"stream": "orders"},
    "KafkaTopic": {"topic": "orders"},
    "PulsarTopic": {"topic": "orders"},
    "Foreign": {"kind": "orders"},
    "Lag": {"stream": "orders"},
    "SqlTable": {"url": "sqlite:///file.db", "table": "orders"},
    "Rule": {"pattern": {}},
    "HttpTarget": {"url": "http://x"},
    "TumblingWindow": {"size": 1},
    "HoppingWindow": {"size": 1, "step": 1},
    "SessionWindow": {"gap": 1},
    **{
        name: {"secret": "HOOK"}
        for name in ("StandardWebhooks", "GitHub", "Stripe", "Slack", "Hmac")
    },
}
MODULES = (bus, debezium, http, windows)
"""What must be imported for `subclasses` to find all: each imports the others."""
UNTYPED = {
    (name, field)
    for name, fields in {
        "Http": ("body", "query", "responses", "schema", "query_schema", "answers"),
        "Webhook": ("body", "schema"),
    }.items()
    for field in fields
}
"""Types, which are made into schemas where a function is declared, and those schemas."""
JUNK: list[Any] = [
    object(),
    "junk, and more of it",
    "",
    -1,
    -0.5,
    float("nan"),
    float("inf"),
    10**400,
    "9" * 400,
    "1" * 400 + "d",
    [1],
    {"a": 1},
    b"x",
    True,
    timedelta(days=-1),
    timedelta.max,
    ValueError,
]
TIMES = [
    "5 minutes",
    "-5m",
    "",
    -1,
    float("nan"),
    float("inf"),
    10**400,
    "9" * 400,
    [5],
    b"5",
    True,
]
SIZES = ["64mb", "-1MiB", "", -1, 1.5, float("nan"), 10**400, "9" * 400, [5], b"5", True]


def subclasses(of: type[Any]) -> list[type[Any]]:
    found = [each for sub in of.__subclasses__() for each in (sub, *subclasses(sub))]
    return [each for each in found if not each.__name__.startswith("_")]


VALUES = subclasses(PolicyStruct)
FIELDS = [(of, field) for of in VALUES for field in msgspec.structs.fields(of)]


def fields_of(kind: Any) -> list[Any]:
    """The fields of one type, or None, of all values."""
    return [
        pytest.param(of, field.name, id=f"{of.__name__}.{field.name}")
        for of, field in FIELDS
        if field.type in (kind, kind | None)
    ]


def make(of: Any, **given: Any) -> Any:
    return of(**{**REQUIRED.get(of.__name__, {}), **given})


def test_all_values_of_an_author_are_looked_at() -> None:
    assert {of.__name__ for of in VALUES} >= {
        *REQUIRED,
        "Retry",
        "Scaling",
        "Resources",
        "Debezium",
    }
    assert len(fields_of(Seconds)) > 30
    assert len(fields_of(Bytes)) >= 4
    for of in VALUES:
        assert isinstance(make(of), of)


@pytest.mark.parametrize("junk", JUNK, ids=lambda junk: f"{junk!r:.20}")
@pytest.mark.parametrize(("of", "field"), [(of, field.name) for of, field in FIELDS])
def test_whatever_a_field_is_given_the_value_can_be_sent_or_is_refused(
    of: Any, field: str, junk: Any
) -> None:
    try:
        made = make(of, **{field: junk})
    except Misuse:
        return
    if (of.__name__, field) not in UNTYPED:
        again = msgspec.msgpack.decode(msgspec.msgpack.encode(made), type=of)
        assert again == made or field == "payload"


@pytest.mark.parametrize("given", TIMES)
@pytest.mark.parametrize(("of", "field"), fields_of(Seconds))
def test_a_wrong_duration_is_refused_with_thing_cause_and_fix(
    of: Any, field: str, given: Any
) -> None:
    with pytest.raises(Misuse, match=r"(?s)`.*[; ](use|write) "):
        make(of, **{field: given})


@pytest.mark.parametrize("given", SIZES)
@pytest.mark.parametrize(("of", "field"), fields_of(Bytes))
def test_a_wrong_size_is_refused_with_thing_cause_and_fix(of: Any, field: str, given: Any) -> None:
    with pytest.raises(Misuse, match=rf"`{field}=` of `.*; (use|write) "):
        make(of, **{field: given})


@pytest.mark.parametrize(("of", "field"), fields_of(Bytes))
def test_a_size_is_kept_as_bytes(of: Any, field: str) -> None:
    made = make(of, **{field: "64KiB"})
    assert getattr(made, field) == 65_536
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(made), type=of)
    assert again == made


@pytest.mark.parametrize(
    ("of", "given", "named", "said"),
    [
        (Retry, (), {"max_attempts": 3}, "`Retry` has no argument `max_attempts` .did you mean `attempts`"),
        (Retry, (3,), {}, r"`Retry` takes no argument by place; write `Retry\(attempts=...\)`"),
        (Retry, (), {"attempts": "3"}, "`attempts=` of `Retry` is `'3'`; use a whole number"),
        (DeadLetter, (), {"to": "x"}, "`DeadLetter` has no argument `to`; it takes none"),
        (Throttle, (), {}, r"`Throttle` needs `limit`; write `Throttle\(limit=...\)`"),
        (Throttle, (1, 2, 3, True, 5), {}, "`Throttle` takes only `limit`, .* by place; leave"),
        (Throttle, (1,), {"limit": 1}, "`Throttle` is given `limit` twice"),
        (Http, ("GET",), {}, r"`Http` needs `path`; write `Http\(path=...\)`"),
        (Http, ("GET", "/x"), {"mode": "synk"}, "`mode=` of `Http` is `'synk'`; use `sync`, `live` or `async`"),
        (Http, ("GET", "/x"), {"auth": Bearer}, r"`auth=` of `Http` is .*; use `Bearer\(...\)` or None"),
        (Scaling, (), {"spare": "yes"}, "`spare=` of `Scaling` is `'yes'`; use True or False"),
        (Breaker, (), {"failures": None}, "`failures=` of `Breaker` is `None`; use a whole number"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_refused_in_words(
    of: Any, given: tuple[Any, ...], named: dict[str, Any], said: str
) -> None:
    with pytest.raises(Misuse, match=said):
        of(*given, **named)


def shop() -> App:
    return App("shop")


@pytest.mark.parametrize("given", TIMES)
@pytest.mark.parametrize(
    "act",
    [
        lambda given: shop().stream("s", retention_age=given),
        lambda given: shop().stream("s", dedupe_window=given),
        lambda given: shop().bus("s", retention_age=given),
        lambda given: shop().queue("q", visibility=given),
        lambda given: shop().queue("q", delay=given),
        lambda given: (app := shop()).function(app.stream("s"), timeout=given)(lambda event: None),
        lambda given: (app := shop()).function(app.stream("s"), batch_window=given)(lambda event: None),
        lambda given: shop().store("s", int, ttl=given),
        lambda given: shop().source(every=given)(nothing),
        lambda given: shop().source(turn_time=given)(nothing),
        lambda given: shop().source(timeout=given)(nothing),
        lambda given: shop().proxy("/x", upstream="http://x", timeout=given),
        lambda given: context().extend(given),
        lambda given: context().publish(shop().queue("q"), 1, delay=given),
        lambda given: context(timeout=given),
        lambda given: context(remaining=given),
        lambda given: context().state.put("n", 1, ttl=given),
        lambda given: World(shop()).advance(given),
        lambda given: World(shop()).run_until_idle(limit=given),
        lambda given: FleetLimits(zygote_age=given),
    ],
)  # fmt: skip
def test_a_wrong_duration_is_refused_wherever_one_is_given(
    act: Callable[[Any], object], given: Any
) -> None:
    with pytest.raises(Misuse, match=r"(?s); (use|write) "):
        act(given)


@pytest.mark.parametrize("given", SIZES)
@pytest.mark.parametrize(
    "act",
    [
        lambda given: shop().stream("s", retention_bytes=given),
        lambda given: shop().stream("s", max_event_bytes=given),
        lambda given: shop().bus("s", retention_bytes=given),
        lambda given: shop().queue("q", max_event_bytes=given),
        lambda given: (app := shop()).function(app.stream("s"), batch_bytes=given)(lambda event: None),
        lambda given: shop().proxy("/x", upstream="http://x", max_bytes=given),
        lambda given: FleetLimits(memory=given),
    ],
)  # fmt: skip
def test_a_wrong_size_is_refused_wherever_one_is_given(
    act: Callable[[Any], object], given: Any
) -> None:
    with pytest.raises(Misuse, match=r"(?s); (use|write) "):
        act(given)


def test_streams_functions_and_routes_keep_sizes_as_bytes() -> None:
    app = shop()
    orders = app.stream("orders", retention_bytes="10GB", max_event_bytes="2MiB")

    @app.function(orders, batch_bytes="1MiB")
    def take(event: Any) -> None: ...

    assert (orders.spec.retention_bytes, orders.spec.max_event_bytes) == (10**10, 2 << 20)
    assert app.spec().functions[0].batch_bytes == 1 << 20
    assert Webhook("/x", GitHub("HOOK"), max_bytes="64KiB").max_bytes == 65_536
    assert (Debounce("5s").seconds, FleetLimits(memory="1GiB").memory) == (5, 1 << 30)


def nothing(checkpoint: Any) -> Any:
    yield from ()
