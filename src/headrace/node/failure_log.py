"""Log of the events that a serving node gives up: a line for each dead letter and parked event.

A failed attempt that is repeated is not logged, nor what functions write (`headrace logs`). Each
function has the budget of lines that it has in `headrace dev`; the number left out is logged.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from headrace.environment.clock import Clock
from headrace.model.effects import DeadEvent
from headrace.node.dev_lines import line_of_dead, line_of_parked, logged
from headrace.node.dev_output import LineQueue
from headrace.telemetry.history import Observer

_logger = logging.getLogger("headrace.node")


class FailureLog(Observer):
    """Observes a node that serves.

    Args:
        clock: The time.
    """

    def __init__(self, clock: Clock) -> None:
        self._queue = LineQueue(clock)

    def gave_up(
        self, function: str, dead: Sequence[DeadEvent], parked: Sequence[DeadEvent]
    ) -> None:
        """Log which events were given up."""
        for letter in dead:
            self._queue.put(line_of_dead(letter))
        for letter in parked:
            self._queue.put(line_of_parked(letter))
        self._log()

    def flush(self) -> None:
        """Log how many lines were left out and not reported yet."""
        self._log(last=True)

    def _log(self, *, last: bool = False) -> None:
        for line in self._queue.take(last=last):
            _logger.warning("%s", logged(line))
