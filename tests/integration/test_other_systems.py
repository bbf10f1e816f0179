"""A system that is not Linux: what needs no node works, the rest says in a sentence what is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from headrace.cli.new import write_project
from headrace.node.config import environment_of

ELSEWHERE = """
import asyncio, ctypes, os, platform, sys, sysconfig, urllib.request
sysconfig.get_config_vars()
sys.platform, platform.system = "darwin", lambda: "Darwin"
del os.fdatasync
loaded = ctypes.CDLL
class Library:
    def __init__(self, *rest, **more): self._real = loaded(*rest, **more)
    def __getattr__(self, name):
        if name in {"prctl", "capset", "mount"}: raise AttributeError(name)
        return getattr(self._real, name)
ctypes.CDLL = Library
"""
MAIN = "from headrace.cli.main import main; sys.exit(main(sys.argv[1:]))"


def run(folder: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", ELSEWHERE + program, *arguments],
        cwd=folder,
        env=environment_of({}),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    write_project("shop", tmp_path / "shop")
    return tmp_path / "shop"


@pytest.mark.parametrize("command", ["dev", "serve"])
def test_a_node_is_refused_in_a_sentence(command: str, project: Path) -> None:
    done = run(project, MAIN, command)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: a node needs Linux, whose `prctl` this system (Darwin)")


def test_the_doctor_says_what_is_missing(project: Path) -> None:
    done = run(project, MAIN, "doctor")
    assert (done.returncode, done.stderr) == (1, "")
    assert "a node needs Linux" in done.stdout


def test_a_world_and_the_commands_without_a_node_work(project: Path) -> None:
    assert run(project, MAIN, "new", "other").returncode == 0
    assert run(project, MAIN, "validate").returncode == 0
    world = "sys.path.insert(0, '.'); import test_world; "
    world += "test_world.test_orders_are_counted_once_though_the_node_dies()"
    done = run(project, world)
    assert done.returncode == 0, done.stderr
