"""What authors copy passes the strict checks of mypy and pyright: the pages' code, the examples, `headrace new`.

Each page is a folder with its files, each example one with its function and its tests; both checkers
read each of them by itself, as an author's editor would.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
NAMED = re.compile(r"# (\w+\.py)\n")
PAGES = [
    page
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"))
    if "decisions" not in page.parts and FENCE.search(page.read_text())
]
EXAMPLES = [
    folder
    for folder in sorted((ROOT / "examples").iterdir())
    # The demo of flights is a program around a function, on libraries without types.
    if (folder / "function.py").exists() and folder.name != "flights"
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A folder for each page and example, and one that `headrace new` wrote."""
    base = tmp_path_factory.mktemp("authors")
    for page in PAGES:
        folder = base / f"page_{page.stem.replace('-', '_')}"
        folder.mkdir()
        for number, body in enumerate(FENCE.findall(page.read_text())):
            named = NAMED.match(body)
            (folder / (named[1] if named else f"block_{number}.py")).write_text(body)
    for example in EXAMPLES:
        shutil.copytree(example, base / f"example_{example.name}")
    new = [sys.executable, "-m", "headrace.cli.main", "new", "till"]
    subprocess.run(new, cwd=base, check=True, capture_output=True)
    return sorted(folder for folder in base.iterdir() if folder.is_dir())


def test_mypy_has_nothing_to_say(folders: list[Path]) -> None:
    pytest.importorskip("mypy")
    said = [
        f"{folder.name}: {line}"
        for folder in folders
        for line in _said(folder, "mypy", "--strict", "--no-error-summary", "--config-file=")
    ]
    assert not said, "\n".join(said)


def test_pyright_has_nothing_to_say(folders: list[Path]) -> None:
    if not Path(sys.executable).with_name("basedpyright").exists():
        if os.environ.get("CI"):
            pytest.fail("basedpyright is not here; run `make setup-all`")
        pytest.skip("basedpyright is not here; `make setup-all` installs it")
    base = folders[0].parent
    # A folder of its own each: pages have files of the same name.
    settings = {
        "typeCheckingMode": "strict",
        "pythonVersion": f"{sys.version_info[0]}.{sys.version_info[1]}",
        "executionEnvironments": [{"root": folder.name} for folder in folders],
        "include": [folder.name for folder in folders],
    }
    (base / "pyrightconfig.json").write_text(json.dumps(settings))
    found = _said(base, "basedpyright", "--pythonpath", sys.executable, "-p", str(base))
    assert not found, "\n".join(found)


def _said(folder: Path, checker: str, *arguments: str) -> list[str]:
    """The lines in which the checker finds something, about all files below the folder."""
    command = [str(Path(sys.executable).with_name(checker)), *arguments]
    if checker == "mypy":
        cache = folder.parent / ".mypy_cache"
        command += [f"--cache-dir={cache}", *(path.name for path in folder.glob("*.py"))]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    found = [line for line in done.stdout.splitlines() if "error:" in line]
    # A checker that could not start has found nothing either.
    return found or ([] if done.returncode == 0 else [done.stdout + done.stderr])
