"""Asks the hostile app everything, at all levels, of a node whose host is root or another user.

In: a folder, and the uid of the host. Out: the answers by group, question and level. The page that tells
what holds is written from them (`scripts/isolation_page.py`), and compared with them by a test.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import uuid4

from tests.integration.hostile_app import questions
from tests.integration.hostile_app.questions import OFFLINE, REACHED
from tests.integration.launched_hosts import LAUNCH, NOBODY, SOURCE

from headrace.client.address import read_key
from headrace.testing.served import ServedResponse, as_operator
from headrace.testing.served import ask as ask_door

HERE: Final = Path(__file__).parent
LEVELS: Final = (0, 1, 2)
SERVE: Final = """
import os, sys
os.chdir({place!r})
from headrace.cli.main import main
sys.exit(main({words!r}))
"""
FORGED: Final[dict[str, dict[str, Any]]] = {
    "declare a function as another app's": {"function": {"app": "victim"}},
    "name a function as another app's": {"function": {"name": "victim.keep"}},
    "declare a stream as another app's": {"stream": {"owner": "victim"}},
    "take more events at once than anybody may": {"function": {"batch_size": 10**9}},
}
Answers = dict[tuple[str, str], dict[int, str]]
"""By group and question, the answer at each level."""


class Host(NamedTuple):
    """A node that serves the hostile apps and their victim."""

    pid: int
    url: str
    key: str
    place: Path

    def ask(self, method: str, path: str, body: Any = None) -> ServedResponse:
        """Ask as its operator."""
        return ask_door(method, self.url + path, body, **as_operator(self.key, {}))

    def call(self, function: str, value: Any = None) -> Any:
        """What a function answers."""
        answer = self.ask("POST", f"/-/v1/functions/{function}", value)
        assert answer.status == 200, (function, answer)
        return answer.body

    def end_of(self, function: str, value: Any = None) -> str:
        """What a function answers; where its run fails, of what."""
        answer = self.ask("POST", f"/-/v1/functions/{function}", value)
        return str(answer.body if answer.status == 200 else answer.body["cause"]["kind"])


def answers(folder: Path, uid: int) -> Answers:
    """Ask everything of a host that runs as `uid`."""
    found: Answers = {}
    marks = {level: f"600.{uuid4().int % 10**12:012}" for level in LEVELS}
    with _served(folder, uid) as (host, about), ThreadPoolExecutor() as pool:
        host.call("victim.keep", "4000")
        forgeries = {what: pool.submit(_forge, folder, uid, FORGED[what]) for what in FORGED}
        asked = {level: pool.submit(_ask, host, level, about, marks[level]) for level in LEVELS}
        for level, told in asked.items():
            for where, answer in told.result().items():
                found.setdefault(where, {})[level] = answer
        for what, forgery in forgeries.items():
            found["at import", what] = dict.fromkeys(LEVELS, forgery.result())
    # The node has ended, and with it whatever it started.
    lines = _command_lines()
    for level, mark in marks.items():
        left = any(mark in line for line in lines)
        outlived = found.setdefault(("share", "leave a process that outlives the node"), {})
        outlived[level] = REACHED if left else "ended"
    return found


def _ask(host: Host, level: int, about: dict[str, Any], mark: str) -> dict[tuple[str, str], str]:
    app = f"hostile{level}"
    known = {**about, "own": f"{about['apps']}/{app}", **host.call(f"{app}.sibling")}
    groups = {name: group for name, (group, _) in questions.QUESTIONS.items()}
    online = [name for name in groups if not name.endswith(OFFLINE)]
    offline = [name for name in groups if name.endswith(OFFLINE)]
    told = host.call(f"{app}.ask", {"about": known, "names": online})
    told |= host.call(f"{app}.ask_offline", {"about": known, "names": offline})
    found = {(groups[name], name): answer for name, answer in told.items()}
    early = host.call(f"{app}.early")
    found |= {("at import", name): answer for name, answer in early.items()}
    for stream, what in (("inner", "a private stream"), ("open", "another app's stream")):
        said = host.end_of(f"{app}.forge_append", stream)
        held = host.ask("GET", f"/-/v1/streams/{stream}/records").body["records"]
        landed = any("forged" in str(each["value"]) for each in held if not each.get("headers"))
        found["host", f"forge an event on {what}"] = (
            said if said != REACHED or landed else "dropped"
        )
    found["host", "write garbage to the host"] = host.end_of(f"{app}.garble")
    found["share", "run longer than `timeout=` by raw requests for more time"] = host.end_of(
        f"{app}.linger"
    )
    found["share", "take more memory than it may by child processes"] = host.end_of(f"{app}.swarm")
    found["host", "write a line of the log in another's name"] = _claim(host, app)
    host.call(f"{app}.daemonise", mark)
    return found


def _claim(host: Host, app: str) -> str:
    host.call(f"{app}.claim_line")
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        for line in host.ask("GET", "/-/v1/logs?limit=1000").body["logs"]:
            if "forged line" in line["text"] and line["function"].startswith(app):
                claimed = line["key"].startswith("victim") or "\x1b" in line["text"]
                return REACHED if claimed else "its own name"
        time.sleep(0.05)
    return "dropped"


def _forge(folder: Path, uid: int, change: dict[str, Any]) -> str:
    """Whether an app is served that describes itself so."""
    place = folder / f"forged{uuid4().hex[:8]}"
    place.mkdir(mode=0o755)
    (place / "change.json").write_text(json.dumps(change))
    for name in ("forger.py", "victim.py"):
        shutil.copy(HERE / name, place / name)
    _give(place, uid)
    process = _launch(folder, place, uid, ["serve", "victim.py", "forger.py", "--port", "0"])
    try:
        ended = process.wait(20)
    except subprocess.TimeoutExpired:
        return REACHED
    finally:
        process.kill()
        process.wait()
    return "Misuse" if ended == 1 else f"ended with {ended}"


@contextlib.contextmanager
def _served(folder: Path, uid: int) -> Iterator[tuple[Host, dict[str, Any]]]:
    place, apps = folder / "node", folder / "apps"
    for each in (place, apps, folder / "run"):
        each.mkdir(mode=0o755)
    (place / "headrace.toml").write_text('[node]\nlog_level = "info"\n')
    (place / "secret").write_text("secret")
    for name in ("headrace.toml", "secret"):
        (place / name).chmod(0o600)
    with _sockets(place) as (port, abstract):
        about = {
            "data": str(place / "data"),
            "place": str(place),
            "apps": str(apps),
            "victim": str(apps / "victim"),
            "etc": "/etc",
            "port": port,
            "abstract": abstract,
            "host_uid": uid,
            "folders": str(place / "data" / "files"),
        }
        targets = []
        for name in ("victim", *(f"hostile{level}" for level in LEVELS)):
            (apps / name).mkdir(mode=0o755)
            shutil.copy(
                HERE / ("victim.py" if name == "victim" else "app.py"), apps / name / "app.py"
            )
            if name != "victim":
                shutil.copy(HERE / "questions.py", apps / name / "questions.py")
                known = {**about, "level": int(name[-1])}
                (apps / name / "about.json").write_text(json.dumps(known))
            targets.append(str(apps / name / "app.py"))
        for each in (place, apps):
            _give(each, uid)
        words = ["serve", *targets, "--data", str(place / "data"), "--port", "0"]
        process = _launch(folder, place, uid, words)
        try:
            note = place / "data" / "node.json"
            deadline = time.monotonic() + 30
            while not note.is_file():
                patient = process.poll() is None and time.monotonic() < deadline
                assert patient, (place / "node.log").read_text()
                time.sleep(0.05)
            url = json.loads(note.read_bytes())["url"]
            about |= {"url": url, "host": process.pid}
            yield Host(process.pid, url, read_key(note.parent), place), about
        finally:
            process.terminate()
            try:
                process.wait(30)
            finally:
                process.kill()
                process.wait()


def _launch(folder: Path, place: Path, uid: int, words: list[str]) -> subprocess.Popen[bytes]:
    program = SERVE.format(place=str(place), words=words)
    environ = {name: text for name, text in os.environ.items() if "HEADRACE" not in name}
    with (place / "node.log").open("wb") as log:
        return subprocess.Popen(
            [
                sys.executable,
                "-c",
                LAUNCH.format(source=str(SOURCE)),
                str(uid),
                "namespaces",
                str(folder / "run"),
                program,
            ],
            stdout=log,
            stderr=log,
            env={
                **environ,
                "HOSTILE_SECRET": "secret",
                "HEADRACE_SECRET_VICTIMS_CARD": "4000",
                "PYTHONDONTWRITEBYTECODE": "1",
            },
        )


@contextlib.contextmanager
def _sockets(place: Path) -> Iterator[tuple[int, str]]:
    """What others of the machine listen on: a port, an abstract name, and `socket` in `place`."""
    abstract = f"\0hostile{uuid4().hex}"
    with (
        socket.create_server(("127.0.0.1", 0)) as port,
        socket.socket(socket.AF_UNIX) as hidden,
        socket.socket(socket.AF_UNIX) as named,
    ):
        hidden.bind(abstract)
        named.bind(str(place / "socket"))
        (place / "socket").chmod(0o666)
        for each in (hidden, named):
            each.listen()
        yield port.getsockname()[1], abstract


def _give(folder: Path, uid: int) -> None:
    if os.geteuid() == 0:
        for each in (folder, *folder.rglob("*")):
            os.chown(each, uid, uid)


def _command_lines() -> list[str]:
    found = []
    for each in Path("/proc").iterdir():
        if each.name.isdigit():
            with contextlib.suppress(OSError):
                found.append((each / "cmdline").read_text())
    return found


def all_answers(folder: Path) -> dict[str, Answers]:
    """Ask everything of a host that is root and of one that is not; where we are not root, of the latter.

    Args:
        folder: Whose parents every uid may pass.
    """
    users = {"root": 0, "other": NOBODY} if os.geteuid() == 0 else {"other": os.geteuid()}
    with ThreadPoolExecutor() as pool:
        asked = {}
        for user, uid in users.items():
            place = folder / user
            place.mkdir(mode=0o755)
            asked[user] = pool.submit(answers, place, uid)
        return {user: told.result() for user, told in asked.items()}
