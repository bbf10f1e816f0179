"""What `headrace new` writes passes its own tests and strict mypy, and runs."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from headrace.cli.new import write_project
from headrace.node.config import environment_of


@pytest.mark.parametrize("name", ["shop", "my-shop_2"])
def test_a_new_project_passes_its_tests_and_strict_mypy(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    written = write_project(name, folder)
    assert sorted(written) == sorted(path.name for path in folder.iterdir())
    assert tomllib.loads((folder / "pyproject.toml").read_text())["project"]["name"] == name
    for command, said in (
        (["-m", "pytest", "-q"], "4 passed"),
        (["-m", "mypy", "--cache-dir", str(tmp_path / "types")], "Success"),
        (["-m", "headrace.cli.main", "validate", "app.py"], ""),
    ):
        done = subprocess.run(
            [sys.executable, *command],
            cwd=folder,
            env=environment_of({}),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert said in done.stdout
