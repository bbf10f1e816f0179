"""A host that dies while a zygote of its comes up leaves nothing, whatever the zygote was at."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from uuid import uuid4

import pytest
from tests.integration.runtime_fleets import eventually

HOST = """
import asyncio, sys
sys.path[:0] = [{source!r}]
from pathlib import Path
from tests.integration.runtime_fleets import House
async def main():
    home = House(Path(sys.argv[1]))
    await home.fleet.deploy(home.write("time.sleep(600)"), interpreter=sys.argv[2])
print("starts", flush=True)
asyncio.run(main())
"""


def marked(mark: str) -> list[int]:
    """Processes in whose environment the mark stands."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            if mark.encode() in environment:
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize("pause", [0.0, 0.02, 0.05, 0.1, 0.15, 0.3, 1.0])
async def test_a_host_killed_while_its_zygote_comes_up_leaves_nothing_behind(
    tmp_path: Path, pause: float
) -> None:
    mark = f"HEADRACE_TEST_MARK={uuid4().hex}"
    interpreter = tmp_path / "python"
    interpreter.write_text(f'#!/bin/sh\n{mark} exec {sys.executable} "$@"\n')
    interpreter.chmod(0o755)
    host = subprocess.Popen(  # noqa: ASYNC220 - it is killed below, and says one line
        [
            sys.executable,
            "-c",
            HOST.format(source=str(Path(__file__).parents[2])),
            str(tmp_path),
            str(interpreter),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert host.stdout is not None
    assert host.stdout.readline() == "starts\n"
    assert await eventually(lambda: bool(marked(mark)), within=10)
    time.sleep(pause)  # noqa: ASYNC251 - nothing else runs on this loop
    # By the longest pause both stand, and the app is being imported.
    assert len(marked(mark)) == 2 or pause < 1
    host.kill()
    host.wait()
    host.stdout.close()
    assert await eventually(lambda: not marked(mark), within=5), marked(mark)
