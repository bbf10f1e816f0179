"""From `new` to a running node and back: what the first five minutes are made of."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.integration.gateway_nodes import settle

from headrace.cli.main import main
from headrace.client.address import read_key
from headrace.client.http import Client

ENVIRON = {name: value for name, value in os.environ.items() if "HEADRACE" not in name}
COMMAND = [sys.executable, "-m", "headrace.cli.main"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    # Instances run under users of their own, who must be able to come here.
    for folder in (tmp_path, tmp_path.parent):
        folder.chmod(folder.stat().st_mode | 0o755)
    where = tmp_path / "shop"
    assert main(["new", "shop", "--in", str(where)]) == 0
    return where


@pytest.fixture
def node(project: Path) -> Iterator[tuple[Client, subprocess.Popen[bytes]]]:
    with (project / "node.log").open("wb") as log:
        process = subprocess.Popen(
            [*COMMAND, "dev", "--port", "0"], cwd=project, stdout=log, stderr=log, env=ENVIRON
        )
        try:
            with Client(wait_for_note(project, process)) as client:
                yield client, process
        finally:
            process.kill()
            process.wait()


def wait_for_note(project: Path, process: subprocess.Popen[bytes]) -> str:
    note = project / ".headrace" / "node.json"
    deadline = time.monotonic() + 20
    while not note.is_file():
        assert process.poll() is None, (project / "node.log").read_text()
        assert time.monotonic() < deadline, (project / "node.log").read_text()
        time.sleep(0.01)
    url: str = msgspec.json.decode(note.read_bytes())["url"]
    return url


def test_a_new_project_passes_its_own_test(project: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
        env={**ENVIRON, "PYTEST_DEBUG_TEMPROOT": os.environ["PYTEST_DEBUG_TEMPROOT"]},
    )
    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout


def test_a_new_project_is_valid(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    capsys.readouterr()
    assert main(["validate"]) == 0
    said = capsys.readouterr().out
    assert "app `shop`" in said
    assert "1 function, 2 streams" in said
    assert main(["validate", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["apps"][0]["functions"][0]["timeout"] == 10.0


def test_a_new_project_does_what_its_readme_says(
    project: Path, node: tuple[Client, subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, process = node
    monkeypatch.chdir(project)
    monkeypatch.delenv("HEADRACE_URL", raising=False)
    assert main(["publish", "shop.orders", "--file", "orders.jsonl", "--key-field", "item"]) == 0
    settle(client)
    assert client.get("state", "shop", "totals", "tea")["value"] == {
        "item": "tea",
        "sold": 7,
        "revenue": 24.5,
    }
    (dead,) = client.get("dead")["dead"]
    assert dead["event"]["value"]["quantity"] == 0
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0
    assert not (project / ".headrace" / "node.json").exists()


def test_an_edit_is_loaded_while_the_node_runs_and_a_broken_one_is_not(
    project: Path, node: tuple[Client, subprocess.Popen[bytes]]
) -> None:
    client, _ = node
    first = client.get("functions")["functions"][0]["version"]
    code = (project / "app.py").read_text()
    (project / "app.py").write_text(code.replace("price * 1", "price") + "\n\nCHANGED = True\n")
    deadline = time.monotonic() + 20
    while (second := client.get("functions")["functions"][0]["version"]) == first:
        assert time.monotonic() < deadline, (project / "node.log").read_text()
        time.sleep(0.05)
    (project / "app.py").write_text("this is not a python")
    while "kept the old version" not in (project / "node.log").read_text():
        assert time.monotonic() < deadline, (project / "node.log").read_text()
        time.sleep(0.05)
    assert client.get("functions")["functions"][0]["version"] == second
    client.publish("shop.orders", b'{"item":"still","quantity":1,"price":1.0}', key="still")
    settle(client)
    assert client.get("state", "shop", "totals", "still")["value"]["sold"] == 1


def test_data_that_change_are_loaded_too_but_not_what_the_node_writes(
    project: Path, node: tuple[Client, subprocess.Popen[bytes]]
) -> None:
    client, _ = node
    settle(client)

    def reloads() -> int:
        return (project / "node.log").read_text().count("reloaded")

    began = reloads()
    for name in ("notes.log", "shop.db", ".hidden"):
        (project / name).write_text("x")
    client.publish("shop.orders", b'{"item":"tea","quantity":1,"price":1.0}', key="tea")
    settle(client)
    first = client.get("functions")["functions"][0]["version"]
    (project / "prices.csv").write_text("tea,3\n")
    deadline = time.monotonic() + 20
    while client.get("functions")["functions"][0]["version"] == first:
        assert time.monotonic() < deadline, (project / "node.log").read_text()
        time.sleep(0.05)
    # The line in the log about it asks for no other one.
    settle(client)
    assert reloads() == began + 1


def test_ctrl_c_drains_a_node_and_another_ends_it_at_once(project: Path) -> None:
    code = (project / "app.py").read_text()
    slow = code.replace("order = event.value", "import time; time.sleep(60)")
    (project / "app.py").write_text(slow)
    deadline = time.monotonic() + 20
    said = project / "node.log"
    with said.open("wb") as log:
        process = subprocess.Popen(
            [*COMMAND, "serve", "--port", "0"], cwd=project, stdout=log, stderr=log, env=ENVIRON
        )
    try:
        url = wait_for_note(project, process)
        with Client(url, token=read_key(project / ".headrace")) as client:
            client.publish("shop.orders", b'{"item":"slow","quantity":1,"price":1.0}', key="slow")
            while not any(row["in_flight"] for row in client.get("lag")["lag"]):
                assert time.monotonic() < deadline, client.get("lag")
                time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        while "another Ctrl-C ends them at once" not in said.read_text():
            assert time.monotonic() < deadline, said.read_text()
            time.sleep(0.02)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == 130
    finally:
        process.kill()
        process.wait()
    assert "ended at once; what was not committed is delivered again" in said.read_text()
    assert not (project / ".headrace" / "node.json").exists()


def test_a_second_node_on_the_same_folder_is_refused(
    project: Path, node: tuple[Client, subprocess.Popen[bytes]]
) -> None:
    done = subprocess.run(
        [*COMMAND, "serve", "--port", "0"],
        cwd=project,
        capture_output=True,
        text=True,
        env=ENVIRON,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert ".headrace" in done.stderr
    assert "Traceback" not in done.stderr
    assert node[0].request("GET", ("healthz",), at_root=True).json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("app.py", "import nothing_of_that_name\n", "nothing_of_that_name"),
        ("app.py", "x = 1\n", "defines no `App`"),
        ("app.py", "import os\nos._exit(3)\n", "import"),
        ("headrace.toml", '[node]\ntargets = ["nowhere.py"]\n', "nowhere.py"),
        (
            "headrace.toml",
            '[node]\ntargets = ["app.py"]\n[functions."shop.cuont"]\ntimeout = 1.0\n',
            "did you mean `shop.count`?",
        ),
        ("headrace.toml", "[node]\ntarget = []\n", "headrace.toml:2: `target` is unknown"),
    ],
)
def test_what_is_wrong_with_a_project_is_said_by_validate_and_by_serve(
    project: Path, file: str, text: str, says: str
) -> None:
    (project / file).write_text(text)
    for words in (["validate"], ["serve", "--port", "0"]):
        done = subprocess.run(
            [*COMMAND, *words],
            cwd=project,
            capture_output=True,
            text=True,
            env=ENVIRON,
            timeout=60,
            check=False,
        )
        assert done.returncode == 1, done
        assert says in done.stdout + done.stderr


def test_the_bench_measures_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--events", "1000", "--batch", "100", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["committed_per_s"] > 0
    assert found["latency_p99_ms"] >= found["latency_p50_ms"] > 0
