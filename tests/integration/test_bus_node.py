"""The event bus on a real node: real processes, a real HTTP server, kills, commands."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.integration.gateway_nodes import at, operator, records, start, wait_for

from headrace.cli.main import main
from headrace.client.calls import ENVELOPES
from headrace.client.http import Client
from headrace.model.errors import HeadraceError

APP = '''
"""A bus with every kind of target."""

from headrace import App, Event, Retry
from headrace.bus import HttpTarget, Rule

app = App("desk")
bus = app.bus("happenings", 2)
archive = app.stream("archive", 2)
even = app.stream("even")
everywhere = app.stream("everywhere")

app.forward(Rule({"detail": {"n": [{"numeric": [">=", 0]}]}}, bus=bus), to=archive, name="keep")
app.forward(
    Rule(
        {"detail": {"n": [{"numeric": ["<", 20]}]}},
        bus=bus,
        paths={"n": "$.detail.n"},
        template='{"text": "number <n>", "n": <n>}',
    ),
    to=HttpTarget("URL", retry=Retry(attempts=50, initial_delay=0.01, max_delay=0.1)),
    name="tell",
)


@app.function(Rule({"detail": {"even": [True]}}, bus=bus, path="$.detail.n"), output=even)
def take(event: Event) -> dict:
    return {"n": event.value, "replay": event.headers.get("headrace-replay")}


@app.function(Rule({"source": ["other"], "detail-type": ["Ping"]}), output=everywhere)
def ping(event: Event) -> dict:
    return event.value["detail"]
'''


class Partner:
    """The other side: notes every request, and answers as it is told."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.answers: list[int] = []
        noted = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                status = noted.answers.pop(0) if noted.answers else 204
                if status < 300:
                    noted.bodies.append(json.loads(body))
                    noted.keys.append(self.headers["idempotency-key"])
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/in"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def partner() -> Iterator[Partner]:
    found = Partner()
    yield found
    found.server.shutdown()
    found.server.server_close()


class Place:
    """A folder with the app, and the node that runs in it."""

    def __init__(self, folder: Path, partner: Partner) -> None:
        folder.chmod(folder.stat().st_mode | 0o755)
        (folder / "app.py").write_text(APP.replace("URL", partner.url))
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> str:
        self.process, url = start(self.folder)
        return url

    def end(self, how: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(20)
            self.process = None


@pytest.fixture
def place(tmp_path: Path, partner: Partner) -> Iterator[Place]:
    found = Place(tmp_path, partner)
    yield found
    found.end(signal.SIGKILL)


def publish(client: Client, *numbers: int) -> None:
    lines = [
        {"value": {"n": n, "even": n % 2 == 0}, "key": str(n % 5), "id": str(n)} for n in numbers
    ]
    body = "\n".join(json.dumps(line) for line in lines).encode()
    client.publish("happenings", body, media=ENVELOPES)


def test_events_go_to_functions_streams_and_addresses_and_can_be_replayed(
    place: Place, partner: Partner, capsys: pytest.CaptureFixture[str]
) -> None:
    url = place.start()
    partner.answers.extend([500, 404])
    with operator(url) as client:
        publish(client, *range(10))
        wait_for(lambda: len(records(client, "archive")) == 10)
        wait_for(lambda: len(records(client, "even")) == 5)
        wait_for(lambda: len(partner.bodies) == 9)
        (dead,) = wait_for(lambda: client.get("dead")["dead"])
        assert (dead["function"], dead["cause"]["kind"]) == ("_bus.http.desk.tell", "Http404")
        assert main(["dead", "redrive", dead["function"], "--all", *at(url)]) == 0
        wait_for(lambda: len(partner.bodies) == 10)
        assert sorted(one["n"] for one in partner.bodies) == list(range(10))
        assert {one["text"] for one in partner.bodies} == {f"number {n}" for n in range(10)}

        client.publish(
            "default",
            json.dumps({"source": "other", "detail-type": "Ping", "detail": {"a": 1}}).encode(),
        )
        wait_for(lambda: records(client, "everywhere") == [{"a": 1}])

        words = ["--from", "2020-01-01T00:00:00Z", "--rule", "desk.take", "--name", "again"]
        assert main(["bus", "replay", "happenings", *words, *at(url)]) == 0
        assert "`again` is running: 10 events" in capsys.readouterr().out
        again = wait_for(lambda: [n for n in records(client, "even") if n["replay"]][4:] and 1)
        assert again
        assert len(records(client, "archive")) == 10
        (row,) = wait_for(
            lambda: [r for r in client.get("bus", "replays")["replays"] if r["state"] == "done"]
        )
        assert (row["read"], row["sent"], row["left"]) == (10, 5, 0)
        assert main(["bus", "replays", *at(url)]) == 0
        assert main(["bus", "cancel", "again", *at(url)]) == 0
        assert "`again` is done" in capsys.readouterr().out
        assert main(["bus", "replay", "happenings", *words, *at(url)]) == 1
        assert "give this one another name" in capsys.readouterr().err
        with pytest.raises(HeadraceError, match="no replay `other`"):
            client.get("bus", "replays", "other")
    place.end(signal.SIGTERM)


def test_a_node_killed_again_and_again_routes_everything_once(
    place: Place, partner: Partner
) -> None:
    published = 0
    for life in range(4):
        with operator(place.start()) as client:
            for _ in range(10):
                publish(client, *range(published, published + 10))
                published += 10
                time.sleep(0.004 * life)
        place.end(signal.SIGKILL)
    url = place.start()
    with operator(url) as client:
        wait_for(lambda: len(records(client, "archive")) >= published)
        wait_for(lambda: len(records(client, "even")) >= published // 2)
        wait_for(lambda: len({one["n"] for one in partner.bodies}) >= 20)
        time.sleep(0.3)
        kept = records(client, "archive")
        assert Counter(one["n"] for one in kept) == Counter(range(published))
        for key in range(5):
            numbers = [one["n"] for one in kept if one["n"] % 5 == key]
            assert numbers == sorted(numbers)
        evens = Counter(one["n"] for one in records(client, "even"))
        assert evens == Counter(range(0, published, 2))
        # What was sent again after a kill says so by its key.
        assert len(set(partner.keys)) == len({one["n"] for one in partner.bodies}) == 20
    place.end(signal.SIGTERM)


def test_explain_pattern_says_what_failed_without_a_node(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    event = tmp_path / "event.json"
    event.write_text('{"detail": {"total": 40, "state": "paid"}}')
    pattern = '{"detail": {"total": [{"numeric": [">", 100]}], "state": ["paid"], "x": ["y"]}}'
    assert main(["explain", "pattern", pattern, f"@{event}"]) == 1
    said = capsys.readouterr().out
    assert '`detail.total` is 40, but must be one of [{"numeric":[">",100]}]' in said
    assert "`detail.x` is absent" in said
    assert "state" not in said
    assert main(["explain", "pattern", '{"detail": {"state": ["paid"]}}', f"@{event}"]) == 0
    assert "matches" in capsys.readouterr().out
    assert main(["explain", "pattern", '{"a": 1}', "{}"]) == 1
    assert "must be an object or an array" in capsys.readouterr().err
    assert main(["explain", "pattern", "{", "{}"]) == 2
    assert "PATTERN is not JSON" in capsys.readouterr().err
