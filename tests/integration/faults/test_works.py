"""A smoke share of the faults amid queues, tables, schedules and redrives; and that their judge sees."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.auditor.works import Given, Notes, Told, judge_works
from tests.integration.faults.sites import Site
from tests.integration.faults.works_faults import kill_works, visit_works


def test_kills_amid_queues_tables_schedules_and_redrives_lose_and_double_nothing(
    place: Site,
) -> None:
    assert kill_works(place, 6, 1).findings == []


def test_a_death_at_every_place_that_feeds_delays_and_leases_pass(place: Site) -> None:
    assert visit_works(place, 1, 2).findings == []


def tick(second: int, late: int = 0) -> dict[str, Any]:
    due = datetime(2026, 1, 1, 0, 0, second, tzinfo=UTC)
    return {"value": {"time": due.isoformat(), "told": due.timestamp() + late + 0.5}}


def runs(*told: tuple[int, float, float]) -> list[dict[str, Any]]:
    return [{"key": "k", "value": {"n": n, "began": at, "ended": end}} for n, at, end in told]


def window(start: int, *numbers: int) -> dict[str, Any]:
    at = datetime.fromtimestamp(start, UTC).isoformat()
    return {"value": {"key": "k", "start": at, "value": list(numbers)}}


RIGHT = Notes(
    messages={0: (0.0, 0.0), 1: (0.0, 1.0)},
    given=[Given(0, 0.1, 0.2), Given(1, 1.0, 1.1), Given(1, 3.1, 3.2)],
    told=[Told(0, "ack", 0.3, 0.4, sure=True), Told(1, "ack", 3.3, 3.4, sure=True)],
    visibility=2.0,
    rows=3,
    made={"k": [0, 2], "l": [1]},
    period=1.0,
    orders=2,
    news={"k": [0, 4, 9, 12]},
    gap=3.0,
)
RECORDS: dict[str, list[dict[str, Any]]] = {
    "changes": [{"value": {"n": number}} for number in range(3)],
    "made": [
        {"key": "k", "value": {"n": 0}},
        {"key": "l", "value": {"n": 1}},
        {"key": "k", "value": {"n": 2}},
    ],
    "ticks": [tick(1), tick(2), tick(3)],
    "orders": [{"value": {"n": 1}}, {"value": {"n": 0}}],
    "ruled": [{"key": "k", "value": {"n": 4}}, {"key": "k", "value": {"n": 12}}],
    "sums": [window(0, 0, 4, 9), window(1, 12)],
    "throttled": runs((0, 1, 1.1), (4, 4.5, 4.6), (9, 7.1, 7.2), (12, 10.1, 10.2)),
    "alone": runs((4, 1, 2), (0, 2, 3), (9, 4, 5), (12, 5, 6)),
    "settled": runs((4, 2, 2.1), (12, 8, 8.1), (-1, 9, 9.1)),
}


def seen(notes: Notes, records: dict[str, list[dict[str, Any]]], parked: object = ()) -> set[str]:
    def read(path: str) -> bytes:
        if path == "/-/v1/parked":
            return json.dumps({"parked": parked}).encode()
        page = [] if "cursor=" in path else records[path.split("/")[4]]
        return json.dumps({"records": page, "cursor": "c"}).encode()

    return {finding.invariant for finding in judge_works(notes, read)}


def test_the_judge_finds_nothing_in_a_right_history() -> None:
    assert seen(RIGHT, RECORDS) == set()


@pytest.mark.parametrize(
    ("invariant", "change"),
    [
        ("I1", {"told": RIGHT.told[:1]}),
        ("I2", {"told": [*RIGHT.told, Told(0, "ack", 5.0, 5.1, sure=True)]}),
        ("I2", {"given": [*RIGHT.given, Given(0, 4.0, 4.1)]}),
        ("I2", {"given": [*RIGHT.given, Given(7, 4.0, 4.1)]}),
        ("I6", {"given": [Given(1, 0.1, 0.2)]}),
        ("I6", {"given": [Given(1, 1.0, 1.1), Given(1, 1.5, 1.6)]}),
        ("I1", {"rows": 4}),
        ("I1", {"orders": 3}),
        ("I2", {"differing": [1]}),
        ("I1", {"made": {"k": [0, 2, 3], "l": [1]}}),
        ("I3", {"made": {"k": [2, 0], "l": [1]}}),
    ],
)
def test_the_judge_sees_what_users_were_told_wrongly(
    invariant: str, change: dict[str, Any]
) -> None:
    assert invariant in seen(RIGHT._replace(**change), RECORDS)


@pytest.mark.parametrize(
    ("invariant", "stream", "records"),
    [
        ("I2", "changes", [*RECORDS["changes"], RECORDS["changes"][0]]),
        ("I2", "orders", [*RECORDS["orders"], RECORDS["orders"][0]]),
        ("I1", "ticks", [tick(1), tick(3)]),
        ("I2", "ticks", [tick(1), tick(2), tick(2)]),
        ("I3", "ticks", [tick(2), tick(1)]),
        ("I6", "ticks", [tick(1), tick(2), tick(3, late=-2)]),
        ("I1", "ruled", RECORDS["ruled"][:1]),
        ("I3", "ruled", RECORDS["ruled"][::-1]),
        ("I3", "ruled", [*RECORDS["ruled"], {"key": "k", "value": {"n": 9}}]),
        ("I1", "sums", RECORDS["sums"][:1]),
        ("I1", "sums", [window(0, 0, 9), window(1, 12)]),
        ("I2", "sums", [*RECORDS["sums"], RECORDS["sums"][0]]),
        ("I3", "sums", [window(0, 4, 0, 9), window(1, 12)]),
        ("I1", "throttled", RECORDS["throttled"][:3]),
        ("F1", "throttled", runs((0, 1, 1.1), (4, 4, 4.1), (9, 5, 5.1), (12, 6, 6.1))),
        ("F2", "alone", runs((0, 1, 2), (4, 1.9, 3), (9, 4, 5), (12, 5, 6))),
        ("I2", "alone", [*RECORDS["alone"], *runs((9, 7, 8))]),
        ("I1", "settled", RECORDS["settled"][:2]),
        ("I3", "settled", RECORDS["settled"][1::-1] + RECORDS["settled"][2:]),
    ],
)
def test_the_judge_sees_what_came_of_it_wrongly(
    invariant: str, stream: str, records: list[dict[str, Any]]
) -> None:
    assert invariant in seen(RIGHT, RECORDS | {stream: records})


def test_the_judge_knows_how_wrong_the_nodes_clock_was() -> None:
    early = RECORDS | {"ticks": [tick(1), tick(2), tick(30, late=-20)]}
    began = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    assert seen(RIGHT._replace(clock=[(0.0, 0.0), (began + 9, 20.0)]), early) == set()
    assert "I6" in seen(RIGHT._replace(clock=[(0.0, 20.0), (began + 3, 0.0)]), early)


def test_the_judge_sees_what_is_left_parked() -> None:
    assert seen(RIGHT, RECORDS, [{"key": "k"}]) == {"I5"}
