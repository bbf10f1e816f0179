"""Each app has a folder: its instances share what is in there, whatever their uids; nobody else does."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from tests.integration.runtime_fleets import House, house

from headrace.model.errors import Misuse
from headrace.model.event import Event
from headrace.model.invocation import CallInvocation
from headrace.model.outcome import Outcome, Returned
from headrace.model.record import encode_events
from headrace.runtime.base import invoke

ROOT = os.geteuid() == 0
as_root = pytest.mark.skipif(
    not ROOT, reason="instances have uids of their own with a root host only"
)

KEEPER = """
import os, sqlite3, subprocess, sys, tempfile
from pathlib import Path
from headrace import App, Resources
app = App("{name}")
DATABASE = app.folder / "shop.db"

def opened():
    database = sqlite3.connect(DATABASE, isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("CREATE TABLE IF NOT EXISTS sales (who INTEGER)")
    return database

def sell(event):
    "Write, and leave the files of the write-ahead log behind: nothing is closed."
    global held
    held = opened()
    held.execute("INSERT INTO sales VALUES (?)", (os.getuid(),))
    return [os.getuid(), held.execute("SELECT count(*) FROM sales").fetchone()[0]]

for level in (0, 1, 2):
    for who in "ab":
        app.function(name=f"sell_{{who}}{{level}}", resources=Resources(isolation=level))(sell)

@app.function()
def replace(event):
    with tempfile.NamedTemporaryFile("w", dir=app.folder, delete=False) as made:
        made.write(str(os.getuid()))
    os.replace(made.name, app.folder / "last")

@app.function()
def append(event):
    with open(app.folder / "last", "a") as last:
        last.write(" and another")
    return (app.folder / "last").read_text()

@app.function()
def program(event):
    subprocess.run(["sh", "-c", f"echo made > {{app.folder}}/by_program"], check=True)

@app.function()
def after_program(event):
    with open(app.folder / "by_program", "a") as file:
        file.write("here")

def peek(event):
    found = {{}}
    for what in (os.listdir, lambda path: open(path + "/x", "w"), lambda path: open(path + "/shop.db")):
        try:
            what(str(app.folder.parent / "victim"))
        except OSError as error:
            found[len(found)] = error.errno
        else:
            found[len(found)] = 0
    return list(found.values())

for level in (0, 1, 2):
    app.function(name=f"peek{{level}}", resources=Resources(isolation=level))(peek)

@app.function()
def elsewhere(event):
    Path("/etc/headrace-test").write_text("x")

@app.function()
def elsewhere_database(event):
    sqlite3.connect("/etc/headrace-test.db").execute("CREATE TABLE a (b)")

@app.function()
def relative(event):
    open("prices.csv")

@app.function()
def closed(event):
    os.close(os.open(app.folder / "closed", os.O_CREAT | os.O_WRONLY, 0o600))

@app.function()
def reopened(event):
    open(app.folder / "closed")
"""


def _write(folder: Path, name: str, code: str = KEEPER) -> str:
    place = folder / name
    place.mkdir(exist_ok=True)
    (place / "app.py").write_text(dedent(code).format(name=name))
    return str(place / "app.py")


async def _run(found: House, function: str) -> Outcome:
    body = encode_events([Event(b"{}")])
    return await invoke(
        found.fleet.submit,
        CallInvocation(function, 5.0, 7, "_call/0/0", event=body),
    )


async def _answer(found: House, function: str) -> Any:
    outcome = await _run(found, function)
    assert isinstance(outcome, Returned), outcome
    assert outcome.error is None, outcome.error
    return None if outcome.result is None else json.loads(outcome.result)


async def _error(found: House, function: str) -> str:
    outcome = await _run(found, function)
    assert isinstance(outcome, Returned), outcome
    assert outcome.error is not None
    return outcome.error.message


async def test_a_database_with_a_write_ahead_log_is_everybodys_of_the_app(tmp_path: Path) -> None:
    async with house(tmp_path) as found:
        await found.fleet.deploy(_write(tmp_path, "shop"))
        told = [
            await _answer(found, f"shop.sell_{who}{level}") for level in (0, 1, 2) for who in "ab"
        ]
    assert [count for _, count in told] == [1, 2, 3, 4, 5, 6]
    if ROOT:
        assert len({uid for uid, _ in told[2:]}) == 4
    # Another node, with other uids; and its app comes up in another version.
    async with house(tmp_path) as found:
        await found.fleet.deploy(_write(tmp_path, "shop"))
        assert (await _answer(found, "shop.sell_a2"))[1] == 7
        await found.fleet.deploy(_write(tmp_path, "shop", KEEPER + "\n# changed\n"))
        assert (await _answer(found, "shop.sell_b2"))[1] == 8


async def test_a_file_that_was_renamed_to_its_place_is_everybodys(tmp_path: Path) -> None:
    async with house(tmp_path) as found:
        await found.fleet.deploy(_write(tmp_path, "shop"))
        await _answer(found, "shop.replace")
        assert (await _answer(found, "shop.append")).endswith(" and another")


async def test_what_a_program_made_is_everybodys(tmp_path: Path) -> None:
    async with house(tmp_path) as found:
        await found.fleet.deploy(_write(tmp_path, "shop"))
        await _answer(found, "shop.program")
        await _answer(found, "shop.after_program")


@as_root
async def test_another_app_reaches_nothing_of_it_at_any_level(tmp_path: Path) -> None:
    async with house(tmp_path) as found:
        await found.fleet.deploy(_write(tmp_path, "victim"))
        await found.fleet.deploy(_write(tmp_path, "shop"))
        await _answer(found, "victim.sell_a2")
        for level in (0, 1, 2):
            assert 0 not in await _answer(found, f"shop.peek{level}")


async def test_the_folder_is_the_same_after_a_restart(tmp_path: Path) -> None:
    groups = []
    for _ in range(2):
        async with house(tmp_path) as found:
            await found.fleet.deploy(_write(tmp_path, "shop"))
            groups.append((tmp_path / "files" / "shop").stat().st_gid)
    assert groups[0] == groups[1]


@as_root
async def test_an_app_that_moved_keeps_its_files(tmp_path: Path) -> None:
    async with house(tmp_path) as found:
        await found.fleet.deploy(_write(tmp_path, "shop"))
        await _answer(found, "shop.sell_a2")
        await _answer(found, "shop.closed")
    before = (tmp_path / "files" / "shop").stat().st_gid
    moved = tmp_path / "moved"
    (tmp_path / "shop").rename(moved)
    async with house(tmp_path) as found:
        await found.fleet.deploy(str(moved / "app.py"))
        assert (await _answer(found, "shop.sell_a2"))[1] == 2
        await _answer(found, "shop.reopened")
    folder = (tmp_path / "files" / "shop").stat()
    assert folder.st_gid != before
    assert stat.S_IMODE(folder.st_mode) == 0o2770


@as_root
async def test_a_name_that_is_deployed_from_elsewhere_gets_no_files(tmp_path: Path) -> None:
    async with house(tmp_path) as found:
        await found.fleet.deploy(_write(tmp_path, "shop"))
        before = (tmp_path / "files" / "shop").stat().st_gid
        thief = tmp_path / "thief.py"
        thief.write_text('from headrace import App\napp = App("shop")\n')
        with pytest.raises(Misuse, match="is deployed from"):
            await found.fleet.deploy(str(thief))
        assert (tmp_path / "files" / "shop").stat().st_gid == before


async def test_files_out_of_reach_say_where_to_write(tmp_path: Path) -> None:
    async with house(tmp_path) as found:
        await found.fleet.deploy(_write(tmp_path, "shop"))
        assert "app.folder" in await _error(found, "shop.elsewhere")
        assert "keep a database in `app.folder`" in await _error(found, "shop.elsewhere_database")
        relative = await _error(found, "shop.relative")
        assert f"the folder the instance runs in, `{tmp_path / 'scratch'}" in relative
        assert "Path(__file__).parent / 'prices.csv'" in relative
        if ROOT:
            await _answer(found, "shop.closed")
            assert "chmod g+rw" in await _error(found, "shop.reopened")


@as_root
async def test_an_import_that_opens_the_folder_is_told_when_it_is_open(tmp_path: Path) -> None:
    early = 'import sqlite3\nfrom headrace import App\napp = App("{name}")\n'
    async with house(tmp_path) as found:
        for line in ('sqlite3.connect(app.folder / "a.db").close()', '(app.folder / "a").touch()'):
            with pytest.raises(Misuse, match="while the code is imported"):
                await found.fleet.deploy(_write(tmp_path, "shop", early + line))


async def test_an_app_without_files_hears_no_audit_event(tmp_path: Path) -> None:
    """A folder that nobody asks for costs a run nothing."""
    code = """
    from headrace import App
    from headrace.sdk.app_folder import folders
    app = App("{name}")
    @app.function()
    def used(event):
        return sorted(folders.used)
    """
    async with house(tmp_path) as found:
        await found.fleet.deploy(_write(tmp_path, "shop", code))
        assert await _answer(found, "shop.used") == []
