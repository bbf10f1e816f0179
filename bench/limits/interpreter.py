"""A fresh interpreter, from spawn to exit: doing nothing, or importing what is named."""

from __future__ import annotations

import subprocess
import sys
import time

from bench.figures import arguments, report, spread


def spawn(code: str) -> float:
    """Seconds from spawn to exit."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - began


def main() -> None:
    """Spawn `pass`, and an import where one is asked for."""
    parser = arguments(__doc__)
    parser.add_argument("--imports", default="", help="modules, by comma")
    options = parser.parse_args()
    code = f"import {options.imports}" if options.imports else "pass"
    spawn(code)
    samples = [spawn(code) for _ in range(2 if options.quick else 10)]
    report(**spread(samples, scale=1e3, prefix="spawn_ms_"))


if __name__ == "__main__":
    main()
