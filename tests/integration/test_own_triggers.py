"""Schedules, files, silences and custom triggers on a real node: real clock, kernel, processes."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from tests.integration.gateway_nodes import at, operator, records, serving, start, wait_for

from headrace.cli.main import main
from headrace.model.errors import HeadraceError

APP = '''
"""Everything that sets functions off by itself."""

from headrace import App, Cron, Event, Every, Files
from headrace.sources import Emit, Silence

app = App("own")
ticks = app.stream("ticks")
files = app.stream("files")
numbers = app.stream("numbers")
quiet = app.stream("quiet")


@app.function(Every(0.2, misfire="all"), output=ticks)
def tick(event: Event) -> int:
    return round(event.timestamp * 1_000_000)


@app.function(Cron("0 0 1 1 *", payload={"hello": "year"}), output=quiet)
def yearly(event: Event) -> dict:
    return {"fired": event.value}


@app.function(Files("inbox", settle=0.1), output=files)
def arrive(event: Event) -> str:
    return event.value["event"] + " " + event.value["name"]


@app.source(every=0.05, turn_events=7)
def count(checkpoint):
    start = checkpoint or 0
    for number in range(start, start + 20):
        yield Emit(number, checkpoint=number + 1)


@app.function(count, output=numbers)
def note(event: Event) -> int:
    return event.value


@app.function(Silence("files", 0.5), output=quiet)
def hush(event: Event) -> dict:
    return {"silent": event.value["stream"]}
'''


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "inbox").mkdir()
    return tmp_path


def test_every_trigger_of_ours_sets_its_function_off(place: Path) -> None:
    with serving(place, app=APP) as url, operator(url) as client:
        (place / "inbox" / "a.txt").write_text("one")
        wait_for(lambda: "created a.txt" in records(client, "files"))
        (place / "inbox" / "a.txt").unlink()
        wait_for(lambda: "deleted a.txt" in records(client, "files"))
        wait_for(lambda: {"silent": "files"} in records(client, "quiet"))
        numbers = wait_for(lambda: records(client, "numbers"))
        assert numbers == list(range(len(numbers)))
        ticks = wait_for(lambda: records(client, "ticks")[4:])
        assert {after - before for before, after in pairwise(ticks)} <= {200_000}


def test_a_file_is_told_only_when_its_writer_has_closed_it(place: Path) -> None:
    with serving(place, app=APP) as url, operator(url) as client:
        # A writer is known from where the kernel is listened to, a moment after the door opens.
        (place / "inbox" / "first").write_text("z")
        wait_for(lambda: "created first" in records(client, "files"))
        with (place / "inbox" / "slow").open("w") as file:
            for _ in range(4):
                file.write("x")
                file.flush()
                (place / "inbox" / "other").write_text("y")
                time.sleep(0.3)
            assert "created slow" not in records(client, "files")
            wait_for(lambda: "created other" in records(client, "files"))
        wait_for(lambda: "created slow" in records(client, "files"))
        assert records(client, "files").count("created slow") == 1


def test_a_schedule_is_listed_and_fired_by_hand(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(place, app=APP) as url, operator(url) as client:
        rows = wait_for(
            lambda: (
                all(row["next"] for row in client.get("schedules")["schedules"])
                and client.get("schedules")["schedules"]
            )
        )
        assert [(row["function"], row["kind"]) for row in rows] == [
            ("own.tick", "every"),
            ("own.yearly", "cron"),
        ]
        assert main(["schedule", "list", "own.yearly", "--json", *at(url)]) == 0
        (row,) = json.loads(capsys.readouterr().out)
        assert (row["schedule"], row["misfire"], row["fired"]) == ("0 0 1 1 *", "once", None)
        assert row["next"].endswith("-01-01T00:00:00Z")
        assert main(["schedule", "fire", "own.yearly", *at(url)]) == 0
        assert "_own.yearly.cron.0@by-hand-" in capsys.readouterr().out
        wait_for(lambda: {"fired": {"hello": "year"}} in records(client, "quiet"))
        (after,) = client.get("schedules", "own.yearly")["schedules"]
        assert after == row
        for words, says in (
            (["own.note"], "has no schedule"),
            (["own.yearly", "--number", "1"], "there is no number 1"),
            (["own.nothing"], "there is no function `own.nothing`"),
        ):
            assert main(["schedule", "fire", *words, *at(url)]) == 1
            assert says in capsys.readouterr().err
        with pytest.raises(HeadraceError, match=r"no function `own\.nothing`"):
            client.get("schedules", "own.nothing")


def test_a_node_killed_again_and_again_tells_everything_once(place: Path) -> None:
    (place / "app.py").write_text(APP)
    place.chmod(place.stat().st_mode | 0o755)
    dropped = 0
    for life in range(4):
        process, _ = start(place)
        try:
            for _ in range(12):
                (place / "inbox" / f"{dropped}").write_text("x")
                dropped += 1
                time.sleep(0.03 + 0.007 * life)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        (place / "inbox" / f"{dropped}").write_text("while nobody was there")
        dropped += 1
    process, url = start(place)
    try:
        with operator(url) as client:
            wait_for(lambda: len(records(client, "files")) >= dropped)
            time.sleep(0.5)
            assert Counter(records(client, "files")) == Counter(
                f"created {number}" for number in range(dropped)
            )
            numbers = records(client, "numbers")
            assert numbers == list(range(len(numbers)))
            ticks = records(client, "ticks")
            assert len(ticks) > 10
            assert ticks == list(range(ticks[0], ticks[-1] + 1, 200_000))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
