"""What the driver says: progress while it runs, tables when it is over.

On a terminal the progress is one line that is redrawn; elsewhere it is a plain line now and then.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from verify import Finding

PLAIN_EVERY_S = 2.0


class Progress:
    """Tells how far the run is. Used by the driver's main thread."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._began = time.perf_counter()
        self._said = -PLAIN_EVERY_S
        self._status = self._console.status("") if self._console.is_terminal else None

    def __enter__(self) -> Progress:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def say(self, text: str) -> None:
        """Something happened."""
        self._console.print(f"{self._elapsed():6.1f} s  {text}", soft_wrap=True, markup=False)
        sys.stdout.flush()

    def show(
        self, published: int, total: int, done: Mapping[str, int], lag: int, kills: int
    ) -> None:
        """How far everything is."""
        functions = "  ".join(f"{name} {count:,}" for name, count in done.items())
        line = f"published {published:,}/{total:,}  {functions}  lag {lag:,}  kills {kills}"
        if self._status is not None:
            self._status.update(f"{self._elapsed():6.1f} s  {line}")
        elif self._elapsed() - self._said >= PLAIN_EVERY_S:
            self._said = self._elapsed()
            self.say(line)

    def _elapsed(self) -> float:
        return time.perf_counter() - self._began


def print_findings(findings: Sequence[Finding]) -> None:
    """The comparison with pandas, figure by figure."""
    table = Table("figure", title="Headrace against pandas")
    table.add_column("pandas", justify="right")
    table.add_column("headrace", justify="right")
    table.add_column("differences", justify="right")
    for finding in findings:
        table.add_row(
            finding.figure,
            finding.expected,
            finding.found,
            "none" if finding.holds else f"{finding.differences:,}",
            style=None if finding.holds else "bold red",
        )
    _print(table)


def print_figures(title: str, rows: Sequence[tuple[str, str]]) -> None:
    """Measured figures."""
    table = Table("measured", title=title)
    table.add_column("value", justify="right")
    for name, value in rows:
        table.add_row(name, value)
    _print(table)


def print_dead_letters(letters: Sequence[tuple[str, str, bytes]]) -> None:
    """Every dead letter: where it stood, why it was given up, and how it begins."""
    table = Table("position", "cause", "bytes", "begins", title=f"{len(letters)} dead letters")
    for position, cause, value in letters:
        table.add_row(position, cause, f"{len(value):,}", repr(value[:24]))
    _print(table)


def percentiles(seconds: Sequence[float]) -> str:
    """p50, p95, p99 and the largest, in milliseconds."""
    if not seconds:
        return "none measured"
    ordered = sorted(seconds)
    marks = [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)]
    parts = [
        f"{name} {1000 * ordered[min(int(share * len(ordered)), len(ordered) - 1)]:.2f}"
        for name, share in marks
    ]
    return f"{', '.join(parts)}, max {1000 * ordered[-1]:.2f} ms (n = {len(ordered)})"


def _print(table: Table) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=140)
    console.print(table, markup=False)
    sys.stdout.flush()
