"""Every numbered example runs its own test, as a reader would run it: in its folder."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(ROOT.glob("examples/[0-9]*_*/test_example.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.parent.name)
def test_an_example_passes_its_own_test(example: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", example.name],
        cwd=example.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert re.search(r"[1-9]\d* passed", ran.stdout)


def test_every_numbered_example_has_a_function_a_page_and_a_test() -> None:
    for folder in sorted(ROOT.glob("examples/[0-9]*_*/")):
        there = {path.name for path in folder.iterdir()}
        assert {"function.py", "README.md", "test_example.py"} <= there, folder.name


def test_every_page_of_an_example_is_typed_in_the_examples_own_folder() -> None:
    """Two examples may have streams of one name: each needs data of its own."""
    for page in sorted(ROOT.glob("examples/[0-9]*_*/README.md")):
        for block in re.findall(r"```\w*\n(.*?)```", page.read_text(), re.DOTALL):
            if "headrace dev" in block:
                assert block.startswith(f"cd examples/{page.parent.name}\n"), page
                assert re.search(r"headrace dev function\.py$", block, re.MULTILINE), page
