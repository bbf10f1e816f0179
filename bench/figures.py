"""What a measuring program hands back: named figures, as one line of JSON on its standard output.

Also the few things every such program does: take its arguments, choose its cores, find a scratch
folder on the disk under test, and boil samples down. Standard library only, since the peers'
programs use it from an environment without ours.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

SCRATCH = Path(os.environ.get("BENCH_SCRATCH", Path(__file__).parent.parent / "scratch"))
"""On the disk under test; a folder in memory would measure nothing durable."""


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The options every program has; `--quick` asks whether it runs, not how fast."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="a few samples only")
    return parser


def report(**figures: float) -> None:
    """Print the figures; the last thing a program does."""
    rounded = {name: float(f"{value:.6g}") for name, value in figures.items()}
    sys.stdout.write(json.dumps(rounded) + "\n")
    sys.stdout.flush()


SKIPPED = 77
"""The exit code of a program that cannot measure here, and says why on its standard error."""


def skip(reason: str) -> NoReturn:
    """End without figures: something that is not a fault of ours is missing on this machine."""
    sys.stderr.write(reason + "\n")
    sys.exit(SKIPPED)


def percentile(samples: Sequence[float], share: float) -> float:
    """The sample below which `share` of them lie."""
    ordered = sorted(samples)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def spread(samples: Sequence[float], *, scale: float, prefix: str = "") -> dict[str, float]:
    """Median and 99th percentile of durations in seconds, times `scale`, as named figures."""
    return {
        f"{prefix}p50": percentile(samples, 0.5) * scale,
        f"{prefix}p99": percentile(samples, 0.99) * scale,
    }


def cores() -> tuple[int, int]:
    """Two cores this process may use; the same one twice where there is only one."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[0], allowed[1 % len(allowed)]


def pin(core: int) -> None:
    """Stay on one core, so that a limit is not blurred by migrations."""
    os.sched_setaffinity(0, {core})


@contextlib.contextmanager
def scratch(name: str) -> Iterator[Path]:
    """A fresh folder on the disk under test, gone afterwards."""
    SCRATCH.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=SCRATCH))
    # Instances run as users of their own and must reach their scratch folders beneath it.
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
