"""`validate` imports as `serve` does: behind its walls, and into a process that can be forked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.integration.runtime_fleets import children

from headrace.cli.validate import inspect
from headrace.model.errors import Misuse
from headrace.model.settings import ImportEnvironment
from headrace.node.config import environment_of

HEAD = "from headrace import App\napp = App('shop')\n"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root hides files from its apps")


def _written(folder: Path, code: str) -> str:
    (folder / "app.py").write_text(HEAD + code)
    return str(folder / "app.py")


def test_an_app_is_described_and_nothing_stays_behind(tmp_path: Path) -> None:
    before = children()
    code = "orders = app.stream('orders')\n@app.function(orders)\ndef count(event): ...\n"
    spec = inspect(_written(tmp_path, code), ImportEnvironment())
    assert [each.name for each in spec.functions] == ["shop.count"]
    assert children() == before


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (
            "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), name='mill').start()\n",
            "started 1 thread.*mill.*@app.init",
        ),
        ("import socket\nlink = socket.socket()\n", "left `socket.*open"),
        ("import os\nprint('farewell', flush=True)\nos._exit(3)\n", "ended.*\n.*farewell"),
        ("1 / 0\n", "ZeroDivisionError"),
        pytest.param("open('/etc/shadow')\n", "PermissionError|Permission denied", marks=as_root),
    ],
)
def test_what_an_import_must_not_do_is_named(tmp_path: Path, code: str, told: str) -> None:
    with pytest.raises(Misuse, match=rf"(?s){told}"):
        inspect(_written(tmp_path, code), ImportEnvironment())


@as_root
def test_files_that_the_app_cannot_read_are_named(tmp_path: Path) -> None:
    _written(tmp_path, "")
    for name in ("prices.csv", ".hidden", "open.csv"):
        (tmp_path / name).write_text("x")
        (tmp_path / name).chmod(0o644 if name == "open.csv" else 0o600)
    (tmp_path / "inner").mkdir(mode=0o700)
    done = subprocess.run(
        [sys.executable, "-m", "headrace.cli.main", "validate", "app.py"],
        cwd=tmp_path,
        env=environment_of({}),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done
    warnings = [line for line in done.stdout.splitlines() if line.startswith("warning")]
    assert len(warnings) == 2, done.stdout
    assert f"`{tmp_path}/prices.csv` cannot be read" in done.stdout
    assert f"`{tmp_path}/inner` cannot be read" in done.stdout
