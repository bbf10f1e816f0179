"""Clients and tools of others that tests run: skipped where absent, a failure where `CI=true`."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.services.servers import absent

CLIENTS = Path(__file__).parent / "clients"
PATIENCE_S = 120.0


def needed(program: str) -> str:
    """Where `program` is installed."""
    found = shutil.which(program)
    if found is None:
        absent(f"`{program}` is not installed", "`.ci/run` brings it")
    return found or program


def run(*command: str, cwd: Path | None = None, data: bytes | None = None) -> str:
    """What a command said; it has to end well."""
    done = subprocess.run(
        command, cwd=cwd, input=data, capture_output=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    assert done.stderr == b"", done.stderr.decode()
    return done.stdout.decode()
