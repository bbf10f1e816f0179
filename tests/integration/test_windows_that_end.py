"""Windows that no event closes, on a real node: by silence, over `kill -9`, and by command."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.integration.gateway_nodes import at, operator, records, settle, start, wait_for

from headrace.cli.main import main
from headrace.client.http import Client
from headrace.model.errors import HeadraceError

IDLE_S = 1.5
APP = '''
"""What dropped files bring, by hour."""

import csv
from datetime import datetime

from headrace import App, Event, Files, Output
from headrace.windows import TumblingWindow

app = App("drop")
lines = app.stream("lines", partitions=2)
hours, kept = app.stream("hours"), app.stream("kept")


@app.function(Files("inbox", glob="*.csv", slices="csv"), output=lines)
def read(event: Event):
    part = event.value
    (names,) = csv.reader([part["header"]])
    rows = csv.DictReader(part["records"], names)
    return [
        Output(int(row["count"]), key=row["shop"], time=datetime.fromisoformat(row["at"]))
        for row in rows
    ]


@app.window(lines, TumblingWindow("1h"), output=hours, idle=IDLE)
def per_hour(total: int | None, event: Event[int]) -> int:
    return (total or 0) + event.value


@app.window(lines, TumblingWindow("1h"), output=kept)
def kept_open(total: int | None, event: Event[int]) -> int:
    return (total or 0) + event.value
'''
CSV = """shop,at,count
york,2026-01-01T10:05:00+00:00,1
york,2026-01-01T10:15:00+00:00,2
bath,2026-01-01T10:25:00+00:00,4
york,2026-01-01T11:05:00+00:00,8
"""
EXPECTED = {("york", "2026-01-01T10:00:00Z", 3), ("bath", "2026-01-01T10:00:00Z", 4)} | {
    ("york", "2026-01-01T11:00:00Z", 8)
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where the node runs, which its instances may enter."""
    for each in (tmp_path, *tmp_path.parents[:2]):
        each.chmod(each.stat().st_mode | 0o755)
    (tmp_path / "inbox").mkdir()
    (tmp_path / "app.py").write_text(APP.replace("IDLE", f'"{IDLE_S}s"'))
    return tmp_path


@contextmanager
def running(place: Path) -> Iterator[tuple[subprocess.Popen[bytes], str, Client]]:
    process, url = start(place)
    try:
        with operator(url) as client:
            yield process, url, client
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def drop(place: Path) -> None:
    (place / "inbox" / "part").write_text(CSV)
    (place / "inbox" / "part").rename(place / "inbox" / "day.csv")


def told(client: Client, stream: str = "hours") -> list[tuple[str, str, int]]:
    return [(one["key"], one["start"], one["value"]) for one in records(client, stream)]


def test_the_last_window_of_a_dropped_file_comes_without_another_event(place: Path) -> None:
    with running(place) as (_, _, client):
        begun = time.monotonic()
        drop(place)
        wait_for(lambda: len(told(client)) == len(EXPECTED))
        assert time.monotonic() - begun >= IDLE_S
        time.sleep(2 * IDLE_S)
        assert sorted(told(client)) == sorted(EXPECTED)


def test_a_node_that_is_killed_meanwhile_closes_every_window_once(place: Path) -> None:
    with running(place) as (process, _, client):
        drop(place)
        wait_for(lambda: len(records(client, "lines")) == 4)
        settle(client)
        process.kill()
        process.wait()
    with running(place) as (process, _, client):
        # Killed again about when the windows close.
        time.sleep(IDLE_S)
        process.kill()
        process.wait()
    with running(place) as (_, _, client):
        wait_for(lambda: len(told(client)) >= len(EXPECTED))
        time.sleep(2 * IDLE_S)
        assert sorted(told(client)) == sorted(EXPECTED)


def test_open_windows_are_closed_by_command(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def flush(*options: str) -> tuple[int, str]:
        status = main(["window", "flush", "drop.kept_open", *options, *at(url)])
        return status, capsys.readouterr().out

    with running(place) as (_, url, client):
        drop(place)
        wait_for(lambda: len(records(client, "lines")) == 4)
        settle(client)
        # The first hour of `york` is over by its second; the other two are open, or all three are.
        open_ = EXPECTED - set(told(client, "kept"))
        status, said = flush("--key", "bath", "--json")
        assert status == 0
        found: dict[str, Any] = json.loads(said)
        bath = [each for each in open_ if each[0] == "bath"]
        assert (found["closed"], found["waiting"]) == (len(bath), [])
        status, said = flush()
        assert status == 0
        assert "york" in said
        assert "2026-01-01T12:00:00Z" in said
        assert "bath" not in said
        wait_for(lambda: set(told(client, "kept")) == EXPECTED)
        assert flush()[1].strip() == "no window was open"
        assert flush("--partition", "7")[0] == 1
        assert main(["window", "flush", "drop.read", *at(url)]) == 1
        assert "has no windows" in capsys.readouterr().err
        with Client(url) as anybody, pytest.raises(HeadraceError, match="a token is needed"):
            anybody.post("functions", "drop.kept_open", "flush", data={})
