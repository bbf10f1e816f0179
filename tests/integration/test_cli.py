"""The commands against a real node: what people see, what programs get."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.integration.gateway_nodes import at, operator, serving, settle

from headrace.cli.main import main
from headrace.client.http import Client

Say = Callable[..., str]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("node")) as found:
        yield found


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with operator(url) as found:
        yield found


@pytest.fixture
def say(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Say:
    """Run a command and return what it printed."""
    monkeypatch.setenv("HEADRACE_URL", url)
    monkeypatch.setenv("HEADRACE_DATA", at(url)[1])
    monkeypatch.chdir(tmp_path)

    def command(*words: str, status: int = 0) -> str:
        capsys.readouterr()
        assert main(words) == status, capsys.readouterr()
        said = capsys.readouterr()
        return said.out if status == 0 else said.err

    return command


def test_a_value_is_published_and_seen(say: Say) -> None:
    said = say("publish", "notes", "first note", "--key", "n")
    assert said.startswith("published notes/0/")
    position = said.split()[1]
    last = say("tail", "notes", "-n", "1").split("  ")
    assert (last[0], last[2], last[3]) == (position, "n", "first note\n")


def test_lines_of_json_are_published_with_their_keys_times_and_ids(
    say: Say, client: Client, tmp_path: Path
) -> None:
    rows = [
        {"item": "jsonl", "quantity": 1, "when": "2026-01-01T00:00:00Z", "no": n}
        for n in range(2_500)
    ]
    (tmp_path / "orders.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    words = (
        "publish",
        "orders",
        "--file",
        "orders.jsonl",
        "--key-field",
        "item",
        "--time-field",
        "when",
        "--id-field",
        "no",
    )
    assert say(*words) == "published 2,500 events on `orders`\n"
    assert say(*words) == "published 0 events on `orders`, 2,500 duplicates dropped\n"
    settle(client)
    assert say("state", "get", "shop", "shop.count", "jsonl") == "2500\n"
    record = json.loads(say("tail", "orders", "-n", "1", "--json"))
    assert (record["key"], record["time"]) == ("jsonl", "2026-01-01T00:00:00.000000Z")


def test_rows_of_csv_are_published(say: Say, tmp_path: Path) -> None:
    (tmp_path / "parcels.csv").write_text("what,for\nsturdy,ann\nfragile,bob\n")
    found = json.loads(
        say("publish", "parcels", "--file", "parcels.csv", "--key-field", "for", "--json")
    )
    assert found == {"stream": "parcels", "published": 2, "duplicates": 0}
    lines = [json.loads(line) for line in say("tail", "parcels", "-n", "2", "--json").splitlines()]
    assert sorted(line["key"] for line in lines) == ["ann", "bob"]
    assert {"what": "sturdy", "for": "ann"} in [line["value"] for line in lines]


def test_rows_of_csv_are_of_the_type_their_stream_declares(say: Say, tmp_path: Path) -> None:
    (tmp_path / "typed.csv").write_text("item,quantity\nlamp,2\n")
    say("publish", "orders", "--file", "typed.csv")
    (line,) = say("tail", "orders", "-n", "1", "--json").splitlines()
    assert json.loads(line)["value"] == {"item": "lamp", "quantity": 2}
    say("publish", "orders", "--file", "typed.csv", "--types", "text")
    (line,) = say("tail", "orders", "-n", "1", "--json").splitlines()
    assert json.loads(line)["value"] == {"item": "lamp", "quantity": "2"}


def test_a_wrong_line_stops_the_file_and_is_named(say: Say, tmp_path: Path) -> None:
    (tmp_path / "orders.jsonl").write_text('{"item": "x", "quantity": 1}\n{half\n')
    said = say("publish", "orders", "--file", "orders.jsonl", status=1)
    assert said.startswith("error: orders.jsonl:2: this is not JSON")
    (tmp_path / "orders.jsonl").write_text('{"item": "x", "quantity": 1}\n' * 3 + "{half\n")
    said = say("publish", "orders", "--file", "orders.jsonl", "--batch", "1", status=1)
    first, second = said.splitlines()
    assert first == "of `orders.jsonl` the first 2 events went out"
    assert second.startswith("error: orders.jsonl:4: this is not JSON")


def test_standard_input_is_a_file_too(say: Say, url: str) -> None:
    command = [
        sys.executable,
        "-m",
        "headrace.cli.main",
        "publish",
        "notes",
        "--file",
        "-",
        "--format",
        "text",
        *at(url),
    ]
    done = subprocess.run(command, input=b"one\ntwo\n", capture_output=True, check=True)
    assert done.stdout == b"published 2 events on `notes`\n"
    # Not a terminal: no bar, no colour.
    assert done.stderr == b""


def test_a_dead_letter_is_exported_edited_and_redriven(say: Say, client: Client) -> None:
    (position,) = client.publish("orders", b'{"item":"d","quantity":0}', key="edit-1").positions
    assert position is not None
    deadline = time.monotonic() + 10
    while position not in say("dead", "list"):
        assert time.monotonic() < deadline
    (letter,) = [
        row
        for row in map(json.loads, say("dead", "export", "shop.count").splitlines())
        if row["position"] == position
    ]
    assert letter["event"]["value"] == {"item": "d", "quantity": 0}
    said = say("dead", "edit", "shop.count", position, "--value", '{"item":"d","quantity":-1}')
    assert "headrace dead redrive" in said
    shown = say("dead", "show", "shop.count", position)
    assert "by operator" in shown
    assert "value before it was edited" in shown
    said = say("dead", "redrive", "shop.count", position, "--value", '{"item":"d","quantity":1}')
    assert said == "1 dead letter handed to `shop.count` again\n"
    assert position not in say("dead", "list")


def test_dead_letters_are_listed_shown_redriven_and_discarded(say: Say, client: Client) -> None:
    (position,) = client.publish("orders", b'{"item":"d","quantity":0}', key="dead-1").positions
    assert position is not None
    settle(client)
    table = say("dead", "list", "shop.count").splitlines()
    assert table[0].split() == ["FUNCTION", "EVENT", "KEY", "ATTEMPTS", "FAILED", "CAUSE"]
    assert f"shop.count  {position}" in "\n".join(table)
    shown = say("dead", "show", "shop.count", position)
    assert "nothing was ordered" in shown
    assert '{"item": "d", "quantity": 0}' in shown
    (row,) = [
        row for row in json.loads(say("dead", "list", "--json")) if row["position"] == position
    ]
    assert row["event"]["value"] == {"item": "d", "quantity": 0}
    said = say("dead", "redrive", "shop.count", position)
    assert said == "1 dead letter handed to `shop.count` again\n"
    deadline = time.monotonic() + 10
    while position not in say("dead", "list"):
        assert time.monotonic() < deadline
    said = say("dead", "discard", "shop.count", position, "--yes")
    assert said == "1 dead letter of `shop.count` deleted\n"
    said = say("dead", "show", "shop.count", position, status=1)
    assert said.startswith(f"error: `shop.count` has no dead letter at `{position}`")


def test_nothing_is_discarded_without_a_yes(
    say: Say, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    (position,) = client.publish("orders", b'{"item":"d","quantity":0}', key="dead-2").positions
    assert position is not None
    settle(client)
    assert say("dead", "discard", "shop.count", "--all", status=1).endswith("not done\n")
    assert position in say("dead", "list")


def test_parked_keys_are_listed_and_redriven(say: Say, client: Client) -> None:
    client.publish("parcels", b'"fragile"', key="cup")
    settle(client)
    assert "ValueError: too fragile to ship" in say("parked", "list", "shop.ship")
    assert json.loads(say("parked", "list", "--json"))[0]["key"] == "cup"
    assert say("invoke", "shop.wear_gloves", "1") == "null\n"
    said = say("parked", "redrive", "shop.ship", "cup")
    assert said == "1 parked key of `shop.ship` released\n"
    deadline = time.monotonic() + 10
    while "nothing is parked" not in say("parked", "list"):
        assert time.monotonic() < deadline
    assert say("state", "get", "shop", "shop.ship", "shipped/cup") == '"fragile"\n'


def test_an_event_is_explained(say: Say, client: Client) -> None:
    (position,) = client.publish("orders", b'{"item":"e","quantity":1}', key="e").positions
    assert position is not None
    settle(client)
    said = say("explain", position)
    assert "key        e\n" in said
    assert "shop.count  committed" in said
    assert json.loads(say("explain", position, "--json"))["functions"][0]["status"] == "committed"
    assert say("explain", "orders/0/999999", status=1).startswith(
        "error: `orders/0` holds no offset"
    )


def test_functions_streams_and_lag_are_tables(say: Say, client: Client) -> None:
    settle(client)
    said = say("list")
    assert "shop.count" in said
    assert "Add each order to the total of its item." in said
    assert {row["name"] for row in json.loads(say("list", "--json"))["streams"]} >= {
        "orders",
        "notes",
    }
    heads = say("map").splitlines()[0].split("  ")
    assert [head.strip() for head in heads if head][:3] == ["FUNCTION", "STREAMS", "TRIGGER"]
    assert json.loads(say("map", "--json"))[0]["owner"] == "sellers"
    lag = say("lag", "shop.count").splitlines()
    assert lag[0].split()[:4] == ["FUNCTION", "STREAM", "PARTITION", "POSITION"]
    assert len(lag) == 3
    assert [row["lag"] for row in json.loads(say("lag", "--json"))] == [0] * 4
    assert say("lag", "shop.nope", status=1).startswith("error: ")


def test_a_function_is_invoked(say: Say) -> None:
    assert say("invoke", "shop.double", '["a"]') == '[\n  "a",\n  "a"\n]\n'
    assert "TypeError" in say("invoke", "shop.double", "null", status=1)


@pytest.mark.parametrize(
    "words",
    [
        ["invoke"],
        ["lag"],
        ["logs"],
        ["invocations"],
        ["dead", "list"],
        ["parked", "list"],
        ["pause"],
        ["schedule", "list"],
    ],
    ids=" ".join,
)
def test_a_function_that_is_not_there_is_said_and_a_near_one_offered(
    say: Say, words: list[str]
) -> None:
    said = say(*words, "shop.cuont", status=1)
    assert said == "error: there is no function `shop.cuont` (did you mean `shop.count`?)\n"


def test_what_functions_print_is_shown(say: Say, client: Client) -> None:
    client.publish("orders", b'{"item":"printed","quantity":1}', key="p")
    deadline = time.monotonic() + 10
    while "counting printed" not in say("logs", "shop.count", "-n", "1000"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    lines = [json.loads(line) for line in say("logs", "--json", "-n", "1000").splitlines()]
    assert "counting printed" in [line["text"] for line in lines]
    runs = say("invocations", "shop.count", "-n", "3").splitlines()
    assert runs[0].split()[:3] == ["STARTED", "FUNCTION", "OUTCOME"]
    assert json.loads(say("invocations", "--json", "-n", "1"))[0]["function"].startswith("shop.")


def test_state_is_listed_by_prefix(say: Say, client: Client) -> None:
    for item in ("s/1", "s/2"):
        client.publish("orders", json.dumps({"item": item, "quantity": 3}).encode(), key=item)
    settle(client)
    stores = {row["store"]: row for row in json.loads(say("state", "list", "shop", "--json"))}
    assert (stores["shelf"]["type"], stores["shop.count"]["is_empty"]) == ("bool", False)
    rows = json.loads(say("state", "list", "shop", "shop.count", "--prefix", "s/", "--json"))
    assert [(row["key"], row["value"]) for row in rows] == [("s/1", 3), ("s/2", 3)]
    assert (
        say("state", "list", "shop", "shop.count", "--prefix", "zzz")
        == "`shop.count` has no keys under `zzz`\n"
    )
    assert say("state", "get", "shop", "shop.count", "nothing", status=1).startswith(
        "error: the store `shop.count` of app `shop` has nothing at `nothing`"
    )


def test_a_stream_is_followed(url: str) -> None:
    command = [
        sys.executable,
        "-m",
        "headrace.cli.main",
        "tail",
        "notes",
        "-n",
        "2",
        "-f",
        "--from",
        "latest",
        "--json",
        *at(url),
    ]

    def publish() -> None:
        with operator(url) as other:
            for number in range(3):
                other.publish("notes", b"followed %d" % number)

    timer = threading.Timer(1.0, publish)
    timer.start()
    done = subprocess.run(command, capture_output=True, timeout=30, check=True)
    timer.join()
    texts = [json.loads(line)["value_text"] for line in done.stdout.splitlines()]
    assert texts == ["followed 0", "followed 1"]


def test_a_group_is_paused_resumed_and_reset(say: Say, client: Client) -> None:
    settle(client)
    assert "is paused" in say("pause", "shop.count")
    assert say("lag", "shop.count").count("paused") == 2
    assert say("resume", "shop.count") == "`shop.count` goes on\n"
    assert say("reset", "shop.count", "--to", "latest") == "`shop.count` goes on from latest\n"
    assert say("reset", "shop.count", "--to", "noon", status=1).startswith(
        "error: `noon` is not a place"
    )
    again = ("reset", "shop.count", "--to", "earliest", "--order-of")
    assert "have to merge the same streams" in say(*again, "shop.count", status=1)
    assert "there is no function `shop.nope`" in say(*again, "shop.nope", status=1)


def test_the_doctor_says_what_this_machine_gives(say: Say, tmp_path: Path) -> None:
    found = {
        row["name"]: row for row in json.loads(say("doctor", "--json", "--data", str(tmp_path)))
    }
    assert found["sqlite"]["ok"]
    assert "fsync takes" in found["data folder"]["detail"]
    assert "runs `shop`" in found["node"]["detail"]
    assert len(found) > 6
    assert say("doctor").splitlines()[0].split() == ["WHAT", "OK", "FOUND"]


def test_a_data_folder_leads_to_its_node(
    url: str, say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HEADRACE_URL")
    (tmp_path / ".headrace").mkdir()
    (tmp_path / ".headrace" / "node.json").write_text(json.dumps({"url": url, "pid": 1}))
    assert "shop.count" in say("list")
