"""Counts in the peer's worker: how many events its handler saw, over which time, and how late.

The handler calls `seen` with the time the event was sent (0 while draining). When the expected
number has been seen, the figures are written to the file the driver waits for.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path


class Tally:
    """Owned by the worker process; called by its handler only."""

    def __init__(self) -> None:
        self._expected = int(os.environ["BENCH_EXPECTED"])
        self._path = Path(os.environ["BENCH_TALLY"])
        self._count = 0
        self._first = 0.0
        self._latencies: list[float] = []

    def seen(self, sent: float) -> None:
        """An event is being handled now."""
        now = time.time()
        if not self._count:
            self._first = now
        self._count += 1
        if sent:
            self._latencies.append(now - sent)
        if self._count == self._expected:
            self._write(now)

    def seen_all(self, sent: Iterable[float]) -> None:
        """A batch is being handled now."""
        for one in sent:
            self.seen(one)

    def _write(self, now: float) -> None:
        part = self._path.with_suffix(".part")
        part.write_text(
            json.dumps(
                {"seconds": now - self._first, "count": self._count, "latencies": self._latencies}
            )
        )
        part.rename(self._path)
