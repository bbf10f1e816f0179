"""Which machine figures come from, so that those of different machines are never compared."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from pathlib import Path

IDENTITY = ("id", "cpu", "cores", "memory_gib", "kernel", "python")
"""What must be equal for two results to be comparable."""


def _field(path: str, name: str) -> str:
    try:
        with Path(path).open() as lines:
            for line in lines:
                if line.startswith(name):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return "unknown"


def describe_machine() -> dict[str, str | float]:
    """The machine, as far as it matters to the figures."""
    try:
        serial = Path("/etc/machine-id").read_bytes()
    except OSError:
        serial = platform.node().encode()
    memory_kib = _field("/proc/meminfo", "MemTotal").split()[0]
    return {
        # A digest tells machines apart without publishing which one it was.
        "id": hashlib.sha256(serial).hexdigest()[:12],
        "cpu": _field("/proc/cpuinfo", "model name"),
        "cores": float(os.cpu_count() or 0),
        "memory_gib": round(int(memory_kib) / (1 << 20), 1) if memory_kib.isdigit() else 0.0,
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def load_now() -> float:
    """Processes wanting a core, averaged over the last minute."""
    return os.getloadavg()[0]


def describe_commit(checkout: Path) -> str:
    """The commit's short hash, with a `+` where the tree differs from it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(checkout), *arguments], capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    commit = git("rev-parse", "--short=10", "HEAD") or "unknown"
    return commit + ("+" if git("status", "--porcelain", "--", "src") else "")
