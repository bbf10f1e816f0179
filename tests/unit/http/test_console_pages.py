"""The console's further pages: what they say, and that no text of a user's becomes markup."""

from __future__ import annotations

import re

import pytest

from headrace.admin.explain import Explanation, Whereabouts
from headrace.admin.queues import QueueRow, ReaderRow
from headrace.admin.schedules import ScheduleRow
from headrace.admin.sources import SourceRow
from headrace.delivery.parked import ParkedKey
from headrace.http.console import failures, functions, records, triggers
from headrace.http.console.html_parts import size, span, table, when
from headrace.http.console.page_frame import Frame, document
from headrace.http.console.records import Browsed, Held
from headrace.http.console.throughput import rates
from headrace.model.effects import DeadEvent
from headrace.model.function import AppSpec, FunctionSpec, QueueSpec, StreamSpec
from headrace.model.outcome import Cause
from headrace.model.record import Position
from headrace.model.triggers.bus import Forward, Rule
from headrace.model.triggers.http import Http
from headrace.runtime.instance_views import FailedStart
from headrace.telemetry.history import MAX_RUNS, Counters, LogLine, RunRecord
from headrace.topology.map import map_rows

EVIL = "<script>alert(1)</script>"
FRAME = Frame(version="1", ready=True, reason="", apps=("shop",))
SECOND = 1_000_000
RULE = Rule({"source": [EVIL]})
APP = AppSpec(
    name="shop",
    functions=(
        FunctionSpec(
            name="shop.place",
            app="shop",
            triggers=(Http("POST", "/api/orders"), RULE),
            summary=EVIL,
        ),
    ),
    forwards=(Forward("shop.keep", RULE, "kept"),),
)
DEAD = DeadEvent(
    "shop.f", Position("orders", 0, 3), b"", Cause("ValueError", EVIL, EVIL), 5, SECOND, SECOND
)
PARKED = ParkedKey("shop.f", "orders", 0, EVIL, "waiting", 2, SECOND, EVIL)
HELD = Held(
    spec=StreamSpec(name="orders", owner="shop", partitions=2, retention_age=172_800.0),
    extents=[(0, 60, 2048), (5, 10, 100)],
    readers=["shop.f"],
)


def run(at: int, *, outcome: str = "succeeded", events: int = 1) -> RunRecord:
    return RunRecord("shop.f", "k", "i", at, 0.1, events, 1, outcome, "orders/0/3", EVIL)


SHOWN = functions.Shown(
    name="shop.place",
    rows=map_rows([APP]),
    counters=Counters(),
    failed_start=FailedStart(EVIL, SECOND, running=False),
    lag=[],
    sources=[SourceRow("shop.f", 0, "mqtt", "_shop.f.mqtt.0", "failing", EVIL, 3)],
    schedules=[ScheduleRow("shop.f", 0, "cron", EVIL, "once", SECOND, None)],
    dead=[DEAD],
    parked=[PARKED],
    instances=[],
    runs=[run(1)],
    logs=[LogLine(1, 0, "shop.f", "i", "k", "INFO", EVIL)],
)
RECORD = {
    "position": "orders/0/3",
    "offset": 3,
    "appended": "2026-01-01T00:00:00Z",
    "key": EVIL,
    "value": EVIL,
    "headers": {EVIL: EVIL},
    "type": EVIL,
}
SHEETS = {
    "streams": records.list_page([HELD]),
    "records": records.browse_page(
        Browsed(held=HELD, partition=0, records=[RECORD], older="0:0", newer="0:53")
    ),
    "event": records.event_page(
        RECORD,
        Explanation(
            "orders",
            0,
            3,
            EVIL,
            EVIL,
            SECOND,
            1,
            EVIL,
            [Whereabouts("shop.f", "retrying", EVIL, 2, 0, EVIL, EVIL)],
        ),
    ),
    "triggers": triggers.triggers_page([APP], SHOWN.schedules, SHOWN.sources),
    "queues": triggers.queues_page(
        [
            QueueRow(
                "jobs",
                "shop",
                QueueSpec(fifo=True),
                1,
                2,
                [ReaderRow("shop.f", False, 3, 1, 4, 0, 2.0, EVIL)],
            )
        ],
    ),
    "failures": failures.page([DEAD], [PARKED], after="shop.f@orders/0/3"),
    "letter": failures.letter_page(DEAD, RECORD),
    "function": functions.page(SHOWN),
    "runs": functions.runs_page([run(1)], SHOWN.logs),
}
PAGES = {name: document(FRAME, sheet) for name, sheet in SHEETS.items()}


@pytest.mark.parametrize("name", PAGES)
def test_no_text_of_a_user_becomes_markup(name: str) -> None:
    assert EVIL not in PAGES[name]
    assert "<script" not in PAGES[name]
    assert "style=" not in PAGES[name]


@pytest.mark.parametrize("name", PAGES)
def test_every_cell_has_its_head_and_every_tag_its_end(name: str) -> None:
    for body in re.findall(r"<table>(.*?)</table>", PAGES[name]):
        heads = len(re.findall(r"<th[ >]", body))
        assert heads > 1
        for row in re.findall(r"<tr>(.*?)</tr>", body)[1:]:
            assert len(re.findall(r"<td[ >]", row)) == heads
    for tag in ("section", "dl", "pre", "a", "span", "p", "code"):
        assert len(re.findall(rf"<{tag}[ >]", PAGES[name])) == PAGES[name].count(f"</{tag}>")


def test_a_page_of_records_leads_to_older_and_newer_ones() -> None:
    assert 'href="/console/streams/orders?cursor=0:0&amp;partition=0"' in PAGES["records"]
    assert 'href="/console/streams/orders?cursor=0:53&amp;partition=0"' in PAGES["records"]
    assert 'href="/console/events/orders/0/3"' in PAGES["records"]
    assert "65" in PAGES["streams"]
    assert "2.1 KiB" in PAGES["streams"]
    assert "48 h" in PAGES["streams"] or "2 days" in PAGES["streams"]


def test_triggers_of_every_kind_stand_on_their_page() -> None:
    page = PAGES["triggers"]
    assert "POST /api/orders" in page
    assert "shop.keep" in page
    assert "headrace schedule fire shop.f" in page
    assert "failing" in page
    empty = document(FRAME, triggers.triggers_page([], [], []))
    assert empty.count("<p>No ") == 4


def test_a_key_is_written_as_one_word_of_a_command() -> None:
    keys = ("a-b.1", "it's", None)
    parked = [ParkedKey("shop.f", "o", 0, key, "waiting", 1, 0, "") for key in keys]
    html = "".join(failures.parked_table(parked))
    assert "redrive shop.f a-b.1<" in html
    assert "redrive shop.f &#39;it&#39;\\&#39;&#39;s&#39;<" in html
    assert "redrive shop.f --all<" in html


def test_a_rate_is_of_the_last_ten_seconds() -> None:
    now = 100 * SECOND
    known = [run(now - SECOND, events=30), run(now - 9 * SECOND, events=20), run(0, events=999)]
    assert rates(known, now) == {"orders": 5.0}
    assert rates([], now) == {}


def test_where_runs_are_forgotten_sooner_the_rate_is_of_what_is_remembered() -> None:
    now = 100 * SECOND
    known = [run(now - at * 2_000) for at in range(MAX_RUNS)]
    assert rates(known, now)["orders"] == pytest.approx(500, rel=0.01)


def test_numbers_times_and_empty_tables_are_shown_as_people_read_them() -> None:
    assert [size(count) for count in (0, 1023, 1536, 5 << 20, 3 << 40)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "5.0 MiB",
        "3,072.0 GiB",
    ]
    assert [span(seconds) for seconds in (0.25, 600, 7_200, 864_000)] == [
        "0.2 s",
        "10 min",
        "2 h",
        "10 days",
    ]
    assert when(1_700_000_000 * SECOND) == "2023-11-14 22:13:20"
    assert [when(at) for at in (None, 0, -5, 1 << 62)] == ["-"] * 4
    assert list(table(("a", "#b"), [])) == []
