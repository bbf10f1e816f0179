"""The guides, done: every command a page shows is typed at a real node, in order."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDES = ROOT / "docs" / "guides"
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.M | re.S)
DEADLINE_S = 20.0


def write_files(page: Path, folder: Path) -> None:
    """The page's files: python blocks headed `# name.py`."""
    for language, body in FENCE.findall(page.read_text()):
        if language == "python" and (named := re.match(r"# (\w+\.py)\n", body)):
            (folder / named[1]).write_text(body)


def commands(page: Path) -> list[str]:
    """What the page types after `$ `, each with the lines that belong to it."""
    shown = "".join(body for kind, body in FENCE.findall(page.read_text()) if kind == "console")
    return [part.rstrip("\n") for part in re.split(r"^\$ ", shown, flags=re.M) if part.strip()]


def environment(folder: Path) -> dict[str, str]:
    """Where `headrace` is found, and the node's address where there is one."""
    found = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(folder)}
    found["PYTEST_DEBUG_TEMPROOT"] = os.environ["PYTEST_DEBUG_TEMPROOT"]
    note = folder / ".headrace" / "node.json"
    if note.exists():
        found["HEADRACE_URL"] = json.loads(note.read_bytes())["url"]
    return found


@contextmanager
def node(folder: Path, target: str) -> Iterator[None]:
    """A node that serves `target` from `folder`, on a free port."""
    note = folder / ".headrace" / "node.json"
    with (folder / "node.log").open("wb") as log:
        process = subprocess.Popen(
            ["headrace", "dev", target, "--port", "0"],
            cwd=folder,
            env=environment(folder),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        until(note.exists, folder)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(DEADLINE_S) == 0, (folder / "node.log").read_text()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def until(holds: object, folder: Path) -> None:
    """Wait until `holds()`."""
    assert callable(holds)
    end = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < end, (folder / "node.log").read_text()
        time.sleep(0.02)


def typed(folder: Path, command: str, at: Path | None = None) -> str:
    """What a command says that is typed `at` some place: in the folder, where none is given."""
    env = environment(folder)
    command = command.replace("http://127.0.0.1:4280", env.get("HEADRACE_URL", ""))
    run = subprocess.run(
        ["bash", "-c", command],
        cwd=at or folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.returncode == 0, f"$ {command}\n{run.stdout}{run.stderr}"
    return run.stdout


def settled(folder: Path) -> bool:
    """Whether no function is behind."""
    rows = json.loads(typed(folder, "headrace lag --json"))
    rows = rows["rows"] if isinstance(rows, dict) and "rows" in rows else rows
    rows = rows["lag"] if isinstance(rows, dict) else rows
    return all(row["lag"] == 0 for row in rows)


def do(page: Path, folder: Path, *, within: str) -> str:
    """Type the commands of a page; `within` is the app that runs while they are typed."""
    said, at, typing = "", folder, commands(page)
    with node(folder, within):
        for command, following in itertools.zip_longest(typing, typing[1:], fillvalue=""):
            if command.startswith("headrace new") and following.startswith("cd "):
                # In another folder, as the page says.
                at = folder.with_name(f"{folder.name}-other")
                at.mkdir()
            elif command.startswith("cd "):
                at /= command.removeprefix("cd ")
                continue
            elif command.startswith(("headrace dev", "headrace new", "make ")):
                continue
            said += typed(folder, command, at)
            until(lambda: settled(folder), folder)
    return said


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder that instances of another uid may look into."""
    for place in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        place.chmod(place.stat().st_mode | 0o755)
    return tmp_path


def test_the_ten_lines_of_the_readme_do_what_it_says(folder: Path) -> None:
    write_files(ROOT / "README.md", folder)
    said = do(ROOT / "README.md", folder, within="shop.py")
    assert '{"total": 5}' in said.replace('"total":5', '"total": 5')


def test_the_first_function_can_be_written_run_broken_and_mended(folder: Path) -> None:
    page = GUIDES / "first-function.md"
    write_files(page, folder)
    said = do(page, folder, within="shop.py")
    assert "apple" in said
    assert "KeyError: 'durian'" in said


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_a_producer_in_any_language_needs_http_alone(folder: Path) -> None:
    write_files(GUIDES / "first-function.md", folder)
    rows = [{"item": "apple", "count": 2, "customer": "ada", "number": f"n{i}"} for i in range(50)]
    (folder / "orders.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = GUIDES / "producing.md"
    said = do(page, folder, within="shop.py")
    assert "202 Accepted" in said
    with node(folder, "shop.py"):
        write_files(page, folder)
        port = environment(folder)["HEADRACE_URL"].rpartition(":")[2]
        (folder / "again.py").write_text(
            "from producer import publish\n"
            "event = {'value': {'item': 'pear', 'count': 1}, 'id': 'once'}\n"
            f"print([publish('127.0.0.1', {port}, 'orders', [event])['duplicates'] for _ in 'ab'])\n"
        )
        assert typed(folder, f"{sys.executable} again.py") == "[0, 1]\n"
        assert "orders/" not in typed(folder, "headrace dead list")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_requests_are_answered_as_the_page_says(folder: Path) -> None:
    page = GUIDES / "requests.md"
    write_files(page, folder)
    said = do(page, folder, within="desk.py")
    promised = [body for kind, body in FENCE.findall(page.read_text()) if not kind]
    for line in "".join(promised).splitlines():
        # What stands for a hash or a list goes on differently each time.
        assert line.partition("...")[0] in said, line
    assert '"openapi": "3.1.0"' in said


def test_windows_end_as_the_page_says(folder: Path) -> None:
    page = GUIDES / "windows.md"
    write_files(page, folder)
    said = do(page, folder, within="tills.py")
    first, second = said.index('"value": 7'), said.rindex('"value": 8')
    assert first < second < said.index("10:30:00Z", second)
    assert "sales.late/0/0" in said
