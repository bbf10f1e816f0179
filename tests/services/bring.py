"""Bring every server the tests can start, and see that each one answers: `make services`.

Ends with 1 where one is missing or does not start, and says why. Data stays in a temporary folder.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.services.servers import HERE, Server

SHARED = "shared"


def bring(name: str, folder: Path) -> str:
    """Install what is missing, start it, ask it, end it; what went wrong, or nothing."""
    script = str(HERE / f"{name}.sh")
    asked = subprocess.run([script, "install"], capture_output=True, text=True, check=False)
    if asked.returncode:
        return f"cannot be installed: {(asked.stdout + asked.stderr).strip()[-1_000:]}"
    server = Server(name, folder / name)
    try:
        server.start()
    except AssertionError as error:
        return str(error)
    finally:
        server.kill()
    return ""


def main() -> int:
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for script in sorted(HERE.glob("*.sh")):
            if script.stem == SHARED:
                continue
            began = time.monotonic()
            trouble = bring(script.stem, Path(folder))
            failed += bool(trouble)
            took = f"{time.monotonic() - began:.1f} s"
            sys.stdout.write(f"{script.stem:12} {trouble or f'ready, {took}'}\n")
            sys.stdout.flush()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
