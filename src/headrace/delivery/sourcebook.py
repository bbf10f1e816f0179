"""Which sources are well and which are not: written by whoever keeps them running, read by faces.

A source that fails is begun again after a pause, so being well is a matter of time: it is well when
it has run for a while since it last failed. Nothing here survives the node.
"""

from __future__ import annotations

from typing import Final

import msgspec

from headrace.model.errors import HeadraceError
from headrace.world.clock import Clock

WELL_AFTER_S: Final = 30.0
"""How long a source must have run since it failed to count as well again."""
MAX_ERROR: Final = 2_000


class Trouble(msgspec.Struct):
    """What became of one source.

    Attributes:
        error: Why it failed last, whole.
        failures: How often in a row.
        since: When the first of them was, in microseconds since the epoch.
        halted: Whether it is not begun again until the next deployment.
        begun: When it was last begun, in seconds on the monotonic clock.
    """

    error: str = ""
    failures: int = 0
    since: int = 0
    halted: bool = False
    begun: float | None = None


class SourceBook:
    """Owned by the dispatcher; one entry for each stream that a source feeds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[str, Trouble] = {}

    def begun(self, stream: str) -> None:
        """The source of `stream` runs (again)."""
        self._known.setdefault(stream, Trouble()).begun = self._clock.monotonic()

    def failed(self, stream: str, error: BaseException, *, halted: bool = False) -> None:
        """It does no more; `halted` where nobody begins it again."""
        entry = self._known.setdefault(stream, Trouble())
        if self._is_well(entry):
            entry.failures, entry.since = 0, self._clock.now()
        entry.failures += 1
        entry.error, entry.halted, entry.begun = _told(error), halted, None

    def forget(self, stream: str) -> None:
        """The source is taken away."""
        self._known.pop(stream, None)

    def trouble(self, stream: str) -> Trouble | None:
        """What is wrong with the source of `stream`; None where it is well."""
        entry = self._known.get(stream)
        return None if entry is None or self._is_well(entry) else entry

    def _is_well(self, entry: Trouble) -> bool:
        if not entry.failures:
            return True
        return entry.begun is not None and self._clock.monotonic() - entry.begun > WELL_AFTER_S


def _told(error: BaseException) -> str:
    """Our own errors speak for themselves; others need their class."""
    text = str(error) if isinstance(error, HeadraceError) else f"{type(error).__name__}: {error}"
    return text if len(text) <= MAX_ERROR else f"{text[:MAX_ERROR]}…"
