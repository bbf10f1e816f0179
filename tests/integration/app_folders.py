"""An app and its settings in a folder of a test, and the command line as it is used there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent

from headrace.node.config import environment_of


def write(folder: Path, code: str, settings: str = "") -> Path:
    app = folder / "app.py"
    app.write_text(dedent(code))
    (folder / "headrace.toml").write_text(dedent(settings))
    return app


def command(
    folder: Path, *words: str, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "headrace.cli.main", *words],
        cwd=folder,
        env=environment_of(environ or {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
