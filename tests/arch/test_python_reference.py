"""The page of the Python API is what the code says, and says something about every name."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "python.md"
MODULES = re.findall(r"^## `(.+)`$", PAGE.read_text(), re.M)


def test_the_page_is_made_from_the_code() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/python_reference.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"run `make reference`:\n{done.stdout}{done.stderr}"


def test_every_public_module_is_on_the_page() -> None:
    about = import_module("headrace").__doc__ or ""
    assert set(MODULES) == {"headrace", *re.findall(r"`(headrace\.\w+)`", about)}


@pytest.mark.parametrize("module", MODULES)
def test_the_page_has_every_public_name_and_no_other(module: str) -> None:
    told = re.findall(rf"^### `{re.escape(module)}\.(\w+)`$", PAGE.read_text(), re.M)
    assert sorted(told) == sorted(import_module(module).__all__)


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_has_a_docstring(module: str) -> None:
    loaded = import_module(module)
    silent = [name for name in loaded.__all__ if not getattr(loaded, name).__doc__]
    assert silent == []


def test_pages_import_public_names_only() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *ROOT.glob("examples/*/README.md")]
    code = re.compile(r"^from (headrace(?:\.\w+)?) import ((?:\w+(?:, )?)+|\((?:[^)]*)\))$", re.M)
    wrong = [
        f"{page.relative_to(ROOT)}: `{name}` of `{module}`"
        for page in pages
        if "decisions" not in page.parts
        for module, names in code.findall(page.read_text())
        for name in re.findall(r"\w+", names)
        if name not in import_module(module).__all__ and f"{module}.{name}" not in MODULES
    ]
    assert wrong == []
