"""What a hostile function, a neighbour and a stranger are refused by a real node."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.gateway_nodes import served, wait_for

from headrace.testing.served import Served, ask

root = pytest.mark.skipif(os.geteuid() != 0, reason="instances have uids of their own under root")
LEVELS = (0, 1, 2)
APP = """
import os
import urllib.error
import urllib.request

from headrace import App, Resources

app = App("hostile")
kept = app.stream("kept")


def told(event):
    \"\"\"The status of a request that the function makes by itself.\"\"\"
    method, url, data, headers = (event.value[name] for name in ("method", "url", "data", "headers"))
    body = None if data is None else data.encode()
    request = urllib.request.Request(url, data=body, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def capabilities():
    \"\"\"Those inheritable, permitted and effective, as the kernel prints them.\"\"\"
    with open("/proc/self/status") as file:
        rows = dict(line.split(":", 1) for line in file)
    return [rows[name].strip() for name in ("CapInh", "CapPrm", "CapEff")]


def opened(event):
    \"\"\"The first bytes of a file, or the name of the error.\"\"\"
    try:
        with open(event.value, "rb") as file:
            return len(file.read(64))
    except OSError as error:
        return type(error).__name__
"""
APP += "".join(
    f"""

@app.function(resources=Resources(isolation={level}))
def ask{level}(event):
    return told(event)


@app.function(resources=Resources(isolation={level}))
def has{level}(event):
    return capabilities()


@app.function(resources=Resources(isolation={level}))
def open{level}(event):
    return opened(event)
"""
    for level in LEVELS
)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("walls"), APP) as found:
        yield found


def within(node: Served, function: str, value: Any) -> Any:
    """What a function of the hostile app answers."""
    answer = node.ask("POST", f"/-/v1/functions/hostile.{function}", value)
    assert answer.status == 200, answer
    return answer.body


TOKEN = json.dumps({"name": "mine", "scopes": ["admin"]})
ADMIN = [
    ("POST", "/-/v1/tokens", TOKEN),
    ("GET", "/-/v1/tokens", None),
    ("POST", "/-/v1/functions/hostile.ask0/pause", "{}"),
]
REST = [
    ("POST", "/-/v1/streams/kept", "{}"),
    ("POST", "/-/v1/functions/hostile.open0", '"/etc/hostname"'),
    ("GET", "/-/v1/state/hostile", None),
    ("GET", "/-/v1/state/hostile/hostile.keep", None),
    ("GET", "/-/v1/streams/kept/records", None),
    ("GET", "/console", None),
]


def request(node: Served, method: str, path: str, data: str | None, **headers: str) -> Any:
    return {"method": method, "url": node.url + path, "data": data, "headers": headers}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("method", "path", "data"), ADMIN)
def test_a_function_does_not_operate_its_node(
    node: Served, level: int, method: str, path: str, data: str | None
) -> None:
    assert within(node, f"ask{level}", request(node, method, path, data)) == 401


@root
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("method", "path", "data"), REST)
def test_a_function_with_a_uid_of_its_own_is_not_taken_for_a_neighbour(
    node: Served, level: int, method: str, path: str, data: str | None
) -> None:
    assert within(node, f"ask{level}", request(node, method, path, data)) == 401


def test_a_neighbour_publishes_and_calls_but_does_not_operate(node: Served) -> None:
    assert ask("POST", f"{node.url}/-/v1/streams/kept", {}).status == 202
    assert ask("POST", f"{node.url}/-/v1/functions/hostile.open0", "/nowhere").status == 200
    for method, path, data in ADMIN:
        body = None if data is None else data.encode()
        assert ask(method, node.url + path, body).status == 401, path


def test_the_operators_key_is_for_his_user_alone_and_is_made_anew(
    node: Served, tmp_path: Path
) -> None:
    key = Path(node.data) / "operator.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert node.ask("GET", "/-/v1/tokens").status == 200
    assert node.ask("GET", "/-/v1/tokens", authorization=f"Bearer {node.key[:-1]}x").status == 401
    with served(tmp_path, APP) as other:
        assert other.ask("GET", "/-/v1/tokens", authorization=f"Bearer {node.key}").status == 401


def test_commands_find_the_key_by_the_data_folder_and_show_it_to_no_other_address(
    node: Served,
) -> None:
    environ = {name: text for name, text in os.environ.items() if "HEADRACE" not in name}
    for words, status in (
        (["--data", str(node.data)], 0),
        (["--data", str(node.data), "--url", node.url], 0),
        (["--url", node.url], 1),
    ):
        run = subprocess.run(
            [sys.executable, "-m", "headrace.cli.main", "token", "list", *words],
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == status, run.stderr


@pytest.mark.parametrize("origin", ["http://localhost:9999", "http://127.0.0.1:1", "null"])
def test_a_page_that_another_program_of_this_machine_serves_changes_nothing(
    node: Served, origin: str
) -> None:
    sent = {"origin": origin, "content_type": "text/plain"}
    for path, body in (("/-/v1/streams/kept", b"{}"), ("/-/v1/tokens", TOKEN.encode())):
        assert ask("POST", node.url + path, body, **sent).status == 403, path
        assert node.ask("POST", path, body, **sent).status == 403, path
    assert ask("POST", f"{node.url}/-/v1/streams/kept", b"{}", origin=node.url).status == 202


def closed(data: Path) -> None:
    """What a node keeps is for its user alone."""
    assert stat.S_IMODE(data.stat().st_mode) == 0o711
    files = [file for file in data.iterdir() if file.is_file()]
    assert {"headrace.db", "headrace.db-wal", "node.json"} <= {file.name for file in files}
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_what_a_node_keeps_is_for_its_user_alone(node: Served) -> None:
    closed(node.data)


def test_what_lay_open_before_is_closed_at_the_start(tmp_path: Path) -> None:
    with served(tmp_path, APP) as first:
        data = first.data
    for file in data.iterdir():
        file.chmod(0o755 if file.is_dir() else 0o644)
    data.chmod(0o777)
    with served(tmp_path, APP) as again:
        closed(again.data)


@root
@pytest.mark.parametrize("level", LEVELS)
def test_a_function_reads_neither_the_store_nor_its_log(node: Served, level: int) -> None:
    for name in ("headrace.db", "headrace.db-wal", "headrace.db-shm", "node.json"):
        found = within(node, f"open{level}", str(node.data / name))
        assert found in {"PermissionError", "FileNotFoundError"}, name


@pytest.mark.parametrize("level", LEVELS)
def test_a_function_has_no_capability(node: Served, level: int) -> None:
    assert within(node, f"has{level}", None) == ["0000000000000000"] * 3


@root
@pytest.mark.parametrize("level", LEVELS)
def test_a_function_does_not_read_the_operators_key(node: Served, level: int) -> None:
    place = str(node.data / "operator.key")
    assert within(node, f"open{level}", place) in {"PermissionError", "FileNotFoundError"}


VICTIM = """
from headrace import App

app = App("victim")


@app.function()
def keep(event, context):
    context.state.put("card", event.value)
"""
FORGED = """
import msgspec
from headrace import App, Proxy

app = App("forger")
kept = app.stream("forged")


@app.function()
def peep(event, context):
    return context.state.get("card", "")


true = app.spec


def forged(version=""):
    said = true(version)
    function = msgspec.structs.replace(said.functions[0], CHANGE)
    return msgspec.structs.replace(said, functions=(function,) SPEC)


app.spec = forged
"""


@pytest.mark.parametrize(
    ("change", "spec", "why"),
    [
        ('app="victim"', "", "as app `victim`'s"),
        ('name="victim.keep"', "", "whose name begins otherwise"),
        ("batch_size=10**9", "", "out of range"),
        ("parallelism=10**6", "", "out of range"),
        ("triggers=function_triggers * 1000", "", "triggers"),
        ("", ', name="_bus"', "cannot be the name of an app"),
        (
            "",
            ', streams=(msgspec.structs.replace(said.streams[0], owner="victim"),)',
            "own streams",
        ),
        (
            "",
            ', streams=(msgspec.structs.replace(said.streams[0], name="_victim.keep.call.0"),)',
            "cannot be the name of a stream",
        ),
        (
            "",
            ', proxies=(Proxy(path="/x", upstream="http://127.0.0.1:1", before="victim.keep"),)',
            "whose name begins otherwise",
        ),
    ],
)
def test_an_app_that_claims_what_is_anothers_is_not_served(
    tmp_path: Path, change: str, spec: str, why: str
) -> None:
    change = change.replace("function_triggers", "said.functions[0].triggers")
    for each in (tmp_path, *tmp_path.parents[:2]):
        each.chmod(each.stat().st_mode | 0o755)
    (tmp_path / "victim.py").write_text(VICTIM)
    code = FORGED.replace("CHANGE", change).replace(" SPEC", spec)
    (tmp_path / "forger.py").write_text(
        code.replace("import App, Proxy", "import App").replace(
            "import msgspec\n", "import msgspec\nfrom headrace.model.triggers.http import Proxy\n"
        )
    )
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "headrace.cli.main",
            "serve",
            "victim.py",
            "forger.py",
            "--data",
            "data",
            "--port",
            "0",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={name: text for name, text in os.environ.items() if "HEADRACE" not in name},
    )
    assert run.returncode == 1, run.stderr
    assert why in run.stderr


OWNER = """
from headrace import App

app = App("owner")
inner = app.stream("inner", private=True)
start = app.stream("start")


@app.function(start, publishes=[inner], on_failure=Discard())
def fill(event, context):
    context.publish(inner, {"secret": 1}, key="k")


@app.function(inner)
def use(event): ...
""".replace("import App\n", "import App, Discard\n")
INTRUDER = """
from headrace import App

app = App("NAME")
inner = app.external("inner")
mine = app.stream("mine")


@app.function(WAY)
def intrude(event): ...
"""


@pytest.mark.parametrize("name", ["intruder", "owner.intruder"])
@pytest.mark.parametrize("way", ["inner", "mine, output=inner", "mine, publishes=[inner]"])
def test_a_private_stream_is_its_apps_alone(tmp_path: Path, name: str, way: str) -> None:
    for each in (tmp_path, *tmp_path.parents[:2]):
        each.chmod(each.stat().st_mode | 0o755)
    (tmp_path / "owner.py").write_text(OWNER)
    (tmp_path / "intruder.py").write_text(INTRUDER.replace("WAY", way).replace("NAME", name))
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "headrace.cli.main",
            "serve",
            "intruder.py",
            "owner.py",
            "--data",
            "data",
            "--port",
            "0",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={name: text for name, text in os.environ.items() if "HEADRACE" not in name},
    )
    assert run.returncode == 1, run.stderr
    assert "private to app `owner`" in run.stderr


def test_what_a_private_stream_holds_is_shown_to_its_apps_readers_and_the_operator(
    tmp_path: Path,
) -> None:
    with served(tmp_path, OWNER) as node:
        assert node.ask("POST", "/-/v1/streams/start", {}).status == 202
        wait_for(lambda: node.ask("GET", "/-/v1/streams/inner/records").body["records"])

        def token(*scopes: str) -> str:
            made = node.ask("POST", "/-/v1/tokens", {"name": "reader", "scopes": list(scopes)})
            return f"Bearer {made.body['token']}"

        path = "/-/v1/streams/inner/records"
        explained = "/-/v1/explain/inner/0/0"
        for page in (path, explained, "/console/streams/inner", "/console/events/inner/0/0"):
            assert ask("GET", node.url + page).status == 401, page
        assert node.ask("GET", path, authorization=token("read")).status == 403
        assert node.ask("GET", path, authorization=token("read", "read:other")).status == 403
        assert node.ask("GET", path, authorization=token("read", "read:owner")).status == 200
        assert node.ask("GET", explained, authorization=token("read", "read:owner")).status == 200
        assert ask("GET", f"{node.url}/-/v1/streams/start/records").status == 200


BROKEN = """
from headrace import App, DeadLetter, ParkKey, Retry

app = App("owner")
inner = app.stream("inner", private=True)
outer = app.stream("outer")
start = app.stream("start")


@app.function(start, publishes=[inner, outer])
def fill(event, context):
    for stream in (inner, outer):
        context.publish(stream, {"inside": stream.name}, key=f"key-{stream.name}")


@app.function(inner, retry=Retry(attempts=1), on_failure=DeadLetter())
def drop(event):
    raise ValueError("no")


@app.function(outer, retry=Retry(attempts=1), on_failure=DeadLetter())
def drop_too(event):
    raise ValueError("no")


@app.function(inner, retry=Retry(attempts=1), on_failure=ParkKey())
def park(event):
    raise ValueError("no")


@app.function(outer, retry=Retry(attempts=1), on_failure=ParkKey())
def park_too(event):
    raise ValueError("no")
"""


def test_what_failed_of_a_private_stream_is_listed_to_its_apps_readers_and_the_operator(
    tmp_path: Path,
) -> None:
    with served(tmp_path, BROKEN) as node:
        assert node.ask("POST", "/-/v1/streams/start", {}).status == 202
        wait_for(lambda: len(node.ask("GET", "/-/v1/dead").body["dead"]) == 2)
        wait_for(lambda: len(node.ask("GET", "/-/v1/parked").body["parked"]) == 2)

        def token(*scopes: str) -> str:
            made = node.ask("POST", "/-/v1/tokens", {"name": "reader", "scopes": list(scopes)})
            return f"Bearer {made.body['token']}"

        plain, own = token("read", "read:other"), token("read", "read:owner")
        for path, listed in (("/-/v1/dead", "dead"), ("/-/v1/parked", "parked")):
            assert len(node.ask("GET", path, authorization=own).body[listed]) == 2
            for shown in (ask("GET", node.url + path), node.ask("GET", path, authorization=plain)):
                assert len(shown.body[listed]) == 1, path
                assert "key-inner" not in str(shown.body), path
        failures = "/console/failures"
        assert "key-inner" in str(node.ask("GET", failures, authorization=own).body)
        for page in (failures, "/console", "/console/functions/owner.park"):
            assert "key-inner" not in str(node.ask("GET", page, authorization=plain).body), page
        for path in (
            "/-/v1/state/owner",
            "/-/v1/state/owner/owner.park",
            "/-/v1/state/owner/owner.park/any",
        ):
            assert node.ask("GET", path, authorization=plain).status == 403, path
        assert node.ask("GET", "/-/v1/state/owner", authorization=own).status == 200


TELLING = """
from headrace import App, DeadLetter, Retry

app = App("owner")
inner = app.stream("inner", private=True)
outer = app.stream("outer")


@app.function(outer, publishes=[inner])
def hand_on(event, context):
    print("outer-text")
    context.publish(inner, {"inside": 1}, key="k")


@app.function(inner, retry=Retry(attempts=1), on_failure=DeadLetter())
def drop(event):
    print("inner-text")
    raise ValueError("inner-value")


@app.function(inner, outer, retry=Retry(attempts=1), on_failure=DeadLetter())
def both(event):
    print("inner-both")
    raise ValueError("inner-error")
"""


def test_what_a_function_wrote_that_reads_a_private_stream_is_its_apps_as_well(
    tmp_path: Path,
) -> None:
    with served(tmp_path, TELLING) as node:
        assert node.ask("POST", "/-/v1/streams/outer", {}).status == 202
        wait_for(lambda: len(node.ask("GET", "/-/v1/dead").body["dead"]) == 3)
        wait_for(lambda: len(node.ask("GET", "/-/v1/logs").body["logs"]) == 4)

        def token(*scopes: str) -> str:
            made = node.ask("POST", "/-/v1/tokens", {"name": "reader", "scopes": list(scopes)})
            return f"Bearer {made.body['token']}"

        plain, own = token("read", "read:other"), token("read", "read:owner")
        # What `both` failed with of a public event tells of the private ones that it holds.
        places = (
            "/-/v1/logs",
            "/-/v1/invocations",
            "/-/v1/dead",
            "/-/v1/logs?function=owner.drop",
            "/-/v1/invocations?function=owner.both",
            "/-/v1/explain/outer/0/0",
            "/console",
            "/console/runs",
            "/console/failures",
            "/console/functions/owner.drop",
            "/console/functions/owner.both",
            "/console/events/outer/0/0",
        )
        for path in places:
            assert "inner-" in str(node.ask("GET", path, authorization=own).body), path
            for shown in (ask("GET", node.url + path), node.ask("GET", path, authorization=plain)):
                assert shown.status in ({401} if path[:8] == "/console" else {200}) | {200}, path
                assert "inner-" not in str(shown.body), path
        for listed in ("/-/v1/logs", "/console/runs"):
            assert "outer-text" in str(node.ask("GET", listed, authorization=plain).body)
        for letter in ("/-/v1/dead/owner.both/outer/0/0", "/console/dead/owner.both/outer/0/0"):
            assert node.ask("GET", letter, authorization=plain).status == 403, letter
            assert node.ask("GET", letter, authorization=own).status == 200, letter


def test_a_link_lets_one_browser_in_once_and_only_to_look(tmp_path: Path) -> None:
    with served(tmp_path, OWNER) as node:
        link = node.ask("POST", "/-/v1/console/links").body["path"]
        assert ask("POST", f"{node.url}/-/v1/console/links").status == 401
        host, _, port = node.url.removeprefix("http://").partition(":")

        def get(path: str, **headers: str) -> http.client.HTTPResponse:
            with contextlib.closing(
                http.client.HTTPConnection(host, int(port), timeout=20)
            ) as connection:
                connection.request("GET", path, headers=headers)
                answer = connection.getresponse()
                answer.read()
                return answer

        entered = get(link)
        assert (entered.status, entered.headers["location"]) == (303, "/console")
        cookie = entered.headers["set-cookie"]
        assert "HttpOnly; SameSite=Strict" in cookie
        assert "Domain" not in cookie
        assert get(link).status == 401
        brought = {"cookie": f"other=1; {cookie.partition(';')[0]}"}
        private = "/console/streams/inner"
        assert get(private).status == 401
        assert get(private, **brought).status == 200
        assert get(private, **brought, **{"sec-fetch-site": "cross-site"}).status == 401
        assert get(private, **brought, **{"sec-fetch-site": "same-site"}).status == 401
        assert get(private, **brought, **{"sec-fetch-dest": "empty"}).status == 401
        assert get("/-/v1/streams/inner/records", **brought).status == 401
        assert ask("POST", f"{node.url}/-/v1/tokens", json.loads(TOKEN), **brought).status == 401
        assert ask("POST", f"{node.url}/-/v1/console/links", **brought).status == 401
