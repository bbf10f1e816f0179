"""Environment and import path with which every process imports an app's code.

A zygote imports so on a node, and `headrace validate` in a process of its own.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

PASSED_ON: Final = (
    "HOME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "PATH",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TZ",
)
"""Variables of the host that every app sees: paths and locale, never secrets."""

_EAGER: Final = {"LD_BIND_NOW": "1"}
"""Resolves library symbols while libraries are loaded; otherwise every child would resolve those that it calls, and write to
shared pages."""

_SINGLE_THREADED: Final = {
    # Numeric libraries start threads while they are imported; threads do not survive a fork.
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


def environment_for_import() -> dict[str, str]:
    """Return the environment with which an app's interpreter is started."""
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return {**kept, **_EAGER, **_SINGLE_THREADED}


def search_paths(target: str) -> list[Path]:
    """Return the entries before an app's `sys.path`: its file's folder, or the current folder."""
    path = target.rsplit(":", 1)[0] if ":" in target else target
    if path.endswith(".py") or "/" in path:
        return [Path(path).resolve().parent]
    return [Path.cwd()]
