"""A queue on a real node over HTTP, with a node that is killed while messages are out."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
from tests.integration.gateway_nodes import at, operator, start

from headrace.cli.main import main
from headrace.client.http import Client
from headrace.model.errors import Invalid, Unknown

APP = '''
"""Queues for programs outside, and one for a function."""

import time

from headrace import App, Context, Event

app = App("post")
letters = app.queue("letters", visibility=20, max_receives=3)
lines = app.queue("lines", fifo=True, visibility=20)
parcels = app.queue("parcels")
sent = app.stream("sent")


long = app.queue("long", visibility=0.5, max_receives=1)
through = app.stream("through")


@app.function(long, output=through)
def haul(event: Event[dict], context: Context) -> str:
    if event.value["extend"]:
        context.extend(20)
    time.sleep(1.5)
    return "there"


@app.function(parcels)
def carry(event: Event[dict], context: Context) -> None:
    context.publish(sent, event.value)
    context.publish(letters, event.value, headers={"headrace-delay": "0.5"})
'''


class Node:
    """A node in a process of its own, on one data folder, that can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        folder.chmod(folder.stat().st_mode | 0o755)
        (folder / "app.py").write_text(APP)
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.client: Client
        self.start()

    def start(self) -> None:
        self._process, url = start(self._folder)
        self.client = operator(url)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        assert self._process is not None
        self.client.close()
        self._process.send_signal(how)
        try:
            self._process.wait(timeout=20)
        finally:
            self._process.kill()

    def send(self, queue: str, value: object, **query: Any) -> Any:
        return self.client.request(
            "POST",
            ("queues", queue),
            body=json.dumps(value).encode(),
            media="application/json",
            query=query,
        ).json()

    def ask(self, queue: str, what: str, **said: Any) -> Any:
        return self.client.request(
            "POST",
            ("queues", queue, what),
            body=json.dumps(said).encode(),
            media="application/json",
        ).json()

    def receive(self, queue: str, most: int = 10, wait: float = 10.0) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask(queue, "receive", max=most, wait=wait)["messages"]
        return found


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    found = Node(tmp_path)
    try:
        yield found
    finally:
        found.stop()


def soon(holds: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_message_is_received_acknowledged_and_gone(node: Node) -> None:
    node.send("letters", {"n": 1})
    (message,) = node.receive("letters")
    assert (message["value"], message["attempt"]) == ({"n": 1}, 1)
    left = datetime.fromisoformat(message["until"]) - datetime.now(UTC)
    assert timedelta() < left <= timedelta(seconds=20)
    with pytest.raises(Invalid, match="not a receipt"):
        node.ask("letters", "ack", receipts=[message["receipt"], "what?"])
    assert node.ask("letters", "ack", receipts=[message["receipt"]]) == {"settled": 1, "stale": []}
    soon(lambda: node.client.get("queues", "letters")["unfinished"] == 0)
    assert node.receive("letters", wait=0.2) == []


def test_leases_outlive_a_kill_and_nothing_is_lost_or_given_out_twice(node: Node) -> None:
    for n in range(20):
        node.send("letters", {"n": n})
    held: dict[int, str] = {}
    while len(held) < 10:
        for message in node.receive("letters", most=10 - len(held)):
            held[message["value"]["n"]] = message["receipt"]
    receipts = list(held.values())
    assert node.ask("letters", "ack", receipts=receipts[:5])["settled"] == 5
    node.stop(signal.SIGKILL)
    node.start()
    assert node.ask("letters", "ack", receipts=receipts[5:8]) == {"settled": 3, "stale": []}
    seen: list[int] = []
    while found := node.receive("letters", wait=2.0):
        seen += [message["value"]["n"] for message in found]
        node.ask("letters", "ack", receipts=[message["receipt"] for message in found])
    assert sorted(seen) == sorted(set(range(20)) - set(held))
    assert node.ask("letters", "extend", receipts=receipts[8:9], seconds=60)["settled"] == 1
    assert node.ask("letters", "nack", receipts=receipts[9:])["settled"] == 1
    (again,) = node.receive("letters")
    assert (again["value"]["n"], again["attempt"]) == (list(held)[9], 2)


def test_a_group_is_given_out_in_order_and_the_node_stops_with_messages_out(node: Node) -> None:
    for n in range(3):
        node.send("lines", n, key="ada")
    for n in range(2):
        (message,) = node.receive("lines")
        assert message["value"] == n
        node.ask("lines", "ack", receipts=[message["receipt"]])
    (message,) = node.receive("lines")
    assert message["value"] == 2
    began = time.monotonic()
    node.stop()
    assert time.monotonic() - began < 10
    node.start()
    assert node.ask("lines", "ack", receipts=[message["receipt"]])["settled"] == 1


def test_dead_messages_are_redriven(node: Node) -> None:
    node.send("letters", "poison")
    for _ in range(3):
        (message,) = node.receive("letters")
        node.ask("letters", "nack", receipts=[message["receipt"]], reason="cannot read it")
    soon(lambda: len(node.client.get("dead")["dead"]) == 1)
    (dead,) = node.client.get("dead")["dead"]
    assert dead["cause"]["message"] == "cannot read it"
    assert node.ask("letters", "redrive") == {"redriven": 1}
    (message,) = node.receive("letters")
    assert node.ask("letters", "ack", receipts=[message["receipt"]])["settled"] == 1


def test_delay_and_priority_come_from_the_query(node: Node) -> None:
    node.send("letters", "late", delay=1.5)
    node.send("letters", "usual")
    node.send("letters", "urgent", priority=100)
    soon(lambda: node.client.get("queues", "letters")["offered"] == 2)
    found = node.receive("letters")
    assert [message["value"] for message in found] == ["urgent", "usual"]
    (late,) = node.receive("letters")
    assert late["value"] == "late"


def test_a_function_on_a_queue_runs_and_what_it_delays_comes_later(node: Node) -> None:
    node.send("parcels", {"n": 7})
    (message,) = node.receive("letters")
    assert message["value"] == {"n": 7}


def test_nothing_is_leased_to_a_client_that_went_away_while_it_waited(node: Node) -> None:
    said = b'{"max": 10, "wait": 20}'
    host, _, port = node.client.url.removeprefix("http://").partition(":")
    for _ in range(3):
        with socket.create_connection((host, int(port))) as gone:
            gone.sendall(
                b"POST /-/v1/queues/letters/receive HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (len(said), said)
            )
            time.sleep(0.2)
    node.send("letters", {"n": 1})
    (message,) = node.receive("letters")
    assert message["attempt"] == 1


def test_a_client_that_waits_does_not_hold_up_the_end_of_the_node(node: Node) -> None:
    with ThreadPoolExecutor(1) as beside:
        waiting = beside.submit(node.receive, "letters", wait=20.0)
        time.sleep(0.5)
        began = time.monotonic()
        node.stop()
        assert time.monotonic() - began < 8
        assert waiting.result() == []
    node.start()


def test_what_is_no_queue_or_no_receipt_is_refused(node: Node) -> None:
    with pytest.raises(Unknown, match="not a queue"):
        node.ask("sent", "receive")
    with pytest.raises(Invalid, match="not a receipt"):
        node.ask("letters", "ack", receipts=["what?"])
    with pytest.raises(Invalid, match="`delay=` is 'soon'"):
        node.send("letters", 1, delay="soon")
    for priority in ("high", "nan", "1e3", "86401"):
        with pytest.raises(Invalid, match=f"priority: {priority}"):
            node.send("letters", 1, priority=priority)
    assert node.ask("letters", "ack", receipts=["letters/0/0/1/ab"])["stale"] == [
        "letters/0/0/1/ab"
    ]


def test_a_function_may_take_longer_once_it_has_asked_for_it(node: Node) -> None:
    node.send("long", {"extend": True})
    node.send("long", {"extend": False})
    soon(lambda: len(node.client.get("dead")["dead"]) == 1)
    soon(
        lambda: (
            len(node.client.get("streams", "through", "records", partition=0, offset=0)["records"])
            == 1
        )
    )


def test_operators_list_look_redrive_and_purge(
    node: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    def say(*words: str, status: int = 0) -> str:
        capsys.readouterr()
        assert main([*words, *at(node.client.url)]) == status
        said = capsys.readouterr()
        return said.err if status else said.out

    for n in range(4):
        node.send("letters", {"n": n}, delay=3_600 if n == 3 else 0)
    (held,) = node.receive("letters", most=1)
    heads, *rows = [line.split() for line in say("queue", "list").splitlines()]
    assert " ".join(heads) == "QUEUE READER WAITING IN FLIGHT DELAYED DEAD PARKED OLDEST S STATE"
    assert rows[0] == ["letters", "post.letters.outside", "2", "1", "1", "0", "0", ANY, "running"]
    shown = say("queue", "show", "letters").splitlines()
    assert shown[:8] == [
        "queue         letters",
        "owner         post",
        "partitions    1",
        "order         none",
        "visibility    20 s",
        "max receives  3",
        "delay         0 s",
        "delayed       1",
    ]
    assert " ".join(shown[9].split()) == "READER WAITING IN FLIGHT DEAD PARKED OLDEST S STATE"
    peeked = json.loads(say("queue", "peek", "letters", "--json"))
    n = held["value"]["n"]
    assert sorted((seen["value"]["n"], seen["state"], seen["receives"]) for seen in peeked) == [
        *((m, "in flight" if m == n else "waiting", int(m == n)) for m in range(3)),
        (3, "delayed", 0),
    ]
    assert say("queue", "peek", "letters", "-n", "1").splitlines()[1].startswith("letters/0/")
    with pytest.raises(Invalid, match="say that you mean it"):
        node.ask("letters", "purge")
    assert say("queue", "purge", "letters", "--yes") == (
        "3 messages for `post.letters.outside` purged from `letters`\n"
        "1 delayed message purged from `letters`\n"
    )
    assert json.loads(say("queue", "purge", "letters", "--yes", "--json")) == {
        "queue": "letters",
        "delayed": 0,
        "readers": {"post.letters.outside": 0},
    }
    assert say("queue", "peek", "letters") == "`letters` is empty\n"
    assert "is a stream, not a queue" in say("queue", "show", "sent", status=1)


def test_operators_redrive_what_a_queue_gave_up(
    node: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    node.send("letters", {"n": 1})
    for _ in range(3):
        (message,) = node.receive("letters")
        node.ask("letters", "nack", receipts=[message["receipt"]], reason="no")
    soon(lambda: node.client.get("queues", "letters")["readers"][0]["dead"] == 1)
    assert main(["queue", "redrive", "letters", *at(node.client.url)]) == 0
    assert capsys.readouterr().out == "1 dead message of `letters` given out again\n"
    (message,) = node.receive("letters")
    assert node.ask("letters", "ack", receipts=[message["receipt"]])["settled"] == 1
    soon(lambda: node.client.get("queues", "letters")["readers"][0]["parked"] == 0)


def test_waiting_messages_outlive_a_kill_and_are_taken_back_by_http_and_by_command(
    node: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    told = [node.send("letters", {"n": n}, id=f"cart/{n}", delay="24h") for n in range(3)]
    assert told == [{"positions": [None], "duplicates": 0, "delayed": 1}] * 3
    assert node.send("letters", {"n": 9}, id="cart/0", delay="1h")["duplicates"] == 1
    soonest = (datetime.now(UTC) + timedelta(seconds=3)).isoformat()
    node.send("letters", {"n": 3}, id="cart/3", at=soonest)
    node.stop(signal.SIGKILL)
    node.start()
    assert node.ask("letters", "cancel", ids=["cart/0", "nobody"]) == {
        "cancelled": ["cart/0"],
        "unknown": ["nobody"],
    }
    url = ["--url", node.client.url, "--data", str(node._folder)]
    assert main(["queue", "peek", "letters", *url]) == 0
    peeked = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert ["cart/1", "delayed"] in peeked
    assert main(["queue", "cancel", "letters", "cart/1", *url]) == 0
    assert main(["queue", "cancel", "letters", "cart/1", *url]) == 1
    assert main(["publish", "letters", "7", "--id", "cart/7", "--delay", "1d", *url]) == 0
    out = capsys.readouterr().out
    assert "`cart/1` will not be delivered" in out
    assert "`headrace queue cancel letters cart/7` takes it back" in out
    assert node.client.get("queues", "letters")["delayed"] in {2, 3}
    (message,) = node.receive("letters")
    assert message["value"] == {"n": 3}
    with pytest.raises(Invalid, match="write seconds, a text such as"):
        node.send("letters", 1, delay="tomorrow")
