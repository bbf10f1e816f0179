"""Nothing a host started outlives it, its zygote or its instance: not even daemons."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.integration.launched_hosts import NOBODY, SOURCE, Host, launched
from tests.integration.runtime_fleets import eventually, lives

from headrace.runtime import kernel

GIVES_IDS = kernel.CAP_CHOWN | kernel.CAP_KILL | kernel.CAP_SETGID | kernel.CAP_SETUID
root = os.geteuid() == 0
MODES = [
    pytest.param(0, True, id="root"),
    pytest.param(0, False, id="root without namespaces"),
    pytest.param(NOBODY, True, id="nobody"),
    pytest.param(NOBODY, False, id="nobody without namespaces"),
]
modes = pytest.mark.parametrize(("uid", "namespaces"), MODES)
pytestmark = pytest.mark.skipif(not root, reason="needs to be root to start hosts as others")


def is_complete(host: Host) -> bool:
    """Before anything is killed, everything is there."""
    return len(host.daemons()) == 2 and len(host.remains()) == 5


def stop_all(host: Host) -> None:
    """Everything beneath the warden stands still, and hears of nothing."""
    for pid in (host.zygote, host.instance, *host.daemons()):
        os.kill(pid, signal.SIGSTOP)


@modes
@pytest.mark.parametrize("stopped", [False, True], ids=["running", "stopped"])
async def test_a_killed_host_leaves_no_process_behind(
    tmp_path: Path, uid: int, namespaces: bool, stopped: bool
) -> None:
    with launched(tmp_path, uid=uid, namespaces=namespaces) as host:
        assert await eventually(lambda: is_complete(host))
        if stopped:
            stop_all(host)
        host.process.kill()
        host.process.wait()
        assert await eventually(lambda: not host.remains()), host.remains()


@modes
@pytest.mark.parametrize("stopped", [False, True], ids=["running", "stopped"])
async def test_a_killed_zygote_leaves_no_process_behind(
    tmp_path: Path, uid: int, namespaces: bool, stopped: bool
) -> None:
    with launched(tmp_path, uid=uid, namespaces=namespaces) as host:
        assert await eventually(lambda: is_complete(host))
        if stopped:
            stop_all(host)
        daemons = host.daemons()
        os.kill(host.zygote, signal.SIGKILL)
        old = [host.warden, host.zygote, host.instance, *daemons]
        assert await eventually(lambda: not any(lives(pid) for pid in old)), host.remains()


@modes
async def test_a_killed_warden_takes_everything_along(
    tmp_path: Path, uid: int, namespaces: bool
) -> None:
    with launched(tmp_path, uid=uid, namespaces=namespaces) as host:
        assert await eventually(lambda: is_complete(host))
        old = host.remains()
        os.kill(host.warden, signal.SIGKILL)
        assert await eventually(lambda: not any(lives(pid) for pid in old)), host.remains()


@modes
@pytest.mark.parametrize("isolation", [0, 1, 2])
async def test_a_killed_instance_leaves_no_process_behind(
    tmp_path: Path, uid: int, namespaces: bool, isolation: int
) -> None:
    with launched(tmp_path, uid=uid, namespaces=namespaces, isolation=isolation) as host:
        assert await eventually(lambda: is_complete(host))
        old = [host.instance, *host.daemons()]
        os.kill(host.instance, signal.SIGKILL)
        assert await eventually(lambda: not any(lives(pid) for pid in old)), host.remains()
        assert lives(host.zygote)


@modes
async def test_the_namespace_is_used_where_there_is_one_and_the_code_is_never_root(
    tmp_path: Path, uid: int, namespaces: bool
) -> None:
    with launched(tmp_path, uid=uid, namespaces=namespaces) as host:
        assert (namespace_of(host.zygote) != namespace_of(host.process.pid)) == namespaces
        assert namespace_of(host.warden) == namespace_of(host.process.pid)
        for pid in (host.zygote, host.instance):
            said = status_of(pid)
            assert "0" not in said["Uid"].split()
            assert said["NoNewPrivs"] == "1"
            assert said["Seccomp"] == "2"
            # At most what it takes to give instances uids of their own, and nothing in those.
            allowed = GIVES_IDS if pid == host.zygote and uid == 0 else 0
            assert int(said["CapPrm"], 16) & ~allowed == 0
            assert int(said["CapInh"], 16) == 0


async def test_a_fork_bomb_is_bounded_where_instances_share_a_uid(tmp_path: Path) -> None:
    with launched(tmp_path, uid=NOBODY, namespaces=True, bombs=True) as host:
        space = namespace_of(host.zygote)
        assert await eventually(lambda: len(in_namespace(space)) > 64, within=10)
        assert not await eventually(lambda: len(in_namespace(space)) > 64 + 256 + 2, within=0.5)
        os.kill(host.instance, signal.SIGKILL)
        assert await eventually(lambda: in_namespace(space) == [host.zygote], within=10)
        assert host.process.poll() is None


def in_namespace(space: str) -> list[int]:
    """The processes that live in a PID namespace."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if namespace_of(int(entry.name)) == space and lives(int(entry.name)):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def namespace_of(pid: int) -> str:
    return str(Path(f"/proc/{pid}/ns/pid").readlink())


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@modes
async def test_the_next_host_takes_away_the_scratch_folders_of_one_that_was_killed(
    tmp_path: Path, uid: int, namespaces: bool
) -> None:
    def there() -> list[Path]:
        return sorted((tmp_path / "scratch").glob("*/*"))

    with launched(tmp_path, uid=uid, namespaces=namespaces) as host:
        # Given: the folder of one instance, and perhaps one that is ready for the next.
        old = there()
        assert 1 <= len(old) <= 2
        (old[0] / "left.txt").write_text("left")
        host.process.kill()
        host.process.wait()
        assert await eventually(lambda: not host.remains())
    with launched(tmp_path, uid=uid, namespaces=namespaces):
        assert await eventually(lambda: not old[0].parent.exists())
        assert 1 <= len(there()) <= 2


@modes
async def test_what_a_living_instance_has_detached_is_left_alone(
    tmp_path: Path, uid: int, namespaces: bool
) -> None:
    with launched(tmp_path, uid=uid, namespaces=namespaces, stays=False) as host:
        assert await eventually(lambda: is_complete(host))
        assert not await eventually(lambda: not is_complete(host), within=0.5)


HOST_OF_A_STOPPED_WARDEN = """
import asyncio, sys
sys.path[:0] = [{source!r}]
from pathlib import Path
from tests.integration.runtime_fleets import House
async def main():
    home = House(Path({folder!r}))
    await home.fleet.deploy(home.write(""), interpreter={interpreter!r})
asyncio.run(main())
"""


async def test_a_warden_that_is_stopped_before_its_first_line_ends_with_its_host(
    tmp_path: Path,
) -> None:
    # It stops itself where an interpreter would begin to start.
    interpreter = tmp_path / "python"
    interpreter.write_text(f'#!/bin/sh\nkill -STOP $$\nexec {sys.executable} "$@"\n')
    interpreter.chmod(0o755)
    program = HOST_OF_A_STOPPED_WARDEN.format(
        source=str(SOURCE), folder=str(tmp_path), interpreter=str(interpreter)
    )
    host = subprocess.Popen([sys.executable, "-c", program])  # noqa: ASYNC220 - over in a moment
    try:
        assert await eventually(lambda: bool(stopped_children(host.pid)), within=20)
        (warden,) = stopped_children(host.pid)
    finally:
        host.kill()
        host.wait()
    try:
        assert await eventually(lambda: not lives(warden))
    finally:
        if lives(warden):
            os.kill(warden, signal.SIGKILL)


def stopped_children(pid: int) -> list[int]:
    """The children of a process that stand still."""
    try:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [int(child) for child in found if status_of(int(child))["State"].startswith("T")]
