"""Output of `headrace dev`: observes the node, and passes lines to a thread that writes them.

The node never waits for a terminal: lines wait in a queue with a bound, each function has a budget
of lines, and the number of lines that do not fit is reported.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from headrace.environment.clock import Clock
from headrace.environment.token_buckets import TokenBuckets
from headrace.model.effects import DeadEvent
from headrace.node.dev_lines import (
    MAX_NAME,
    MAX_TEXT,
    NODE,
    Line,
    line_of_answer,
    line_of_dead,
    line_of_left_out,
    line_of_log,
    line_of_parked,
    line_of_run,
    names,
    written,
)
from headrace.telemetry.history import AnsweredRequest, LogLine, Observer, RunRecord

MAX_WAITING: Final = 4_000
"""Lines that wait to be written; one more is left out."""
LINES_PER_SECOND: Final = 200
"""Of one function, once its burst is spent."""
BURST: Final = 1_000
MAX_BUDGETS: Final = 2_048
REPORT_EVERY_S: Final = 1.0
"""How often the number of left out lines is reported."""
FLUSH_S: Final = 1.0
"""How long the end of the node waits for a terminal."""


class OutputSelection(msgspec.Struct, frozen=True):
    """Selection of the lines that are printed.

    Attributes:
        quiet: Only warnings and errors.
        only: Functions by full name, and apps; empty for all. What the node says of itself is always
            printed.
    """

    quiet: bool = False
    only: tuple[str, ...] = ()

    def takes(self, line: Line, *, is_node: bool = False) -> bool:
        """Return whether the line is printed."""
        if self.quiet and line.severity < logging.WARNING:
            return False
        return is_node or not self.only or names(line.function, self.only)

    def unknown(self, functions: Iterable[str]) -> list[str]:
        """Return the names in `only` that no function or app has."""
        known = list(functions)
        return [name for name in self.only if not any(names(each, (name,)) for each in known)]


class LineQueue:
    """Lines that wait to be written. Safe for two threads: one puts, one takes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: deque[Line] = deque()
        self._left_out: Counter[str] = Counter()
        self._budgets = TokenBuckets(MAX_BUDGETS)
        self._reported = 0.0

    @property
    def is_empty(self) -> bool:
        """Return whether there is nothing to write, now or later."""
        return not (self._waiting or self._left_out)

    @property
    def owes(self) -> bool:
        """Return whether lines were left out and not reported yet."""
        return bool(self._left_out)

    def put(self, line: Line) -> None:
        """Let a line wait, or count it as left out."""
        with self._lock:
            now = self._clock.monotonic()
            is_afforded = not self._budgets.take(
                line.function, speed=LINES_PER_SECOND, depth=BURST, now=now
            )
            if is_afforded and len(self._waiting) < MAX_WAITING:
                self._waiting.append(line)
            else:
                self._left_out[line.function] += 1

    def take(self, *, last: bool = False) -> list[Line]:
        """Return the lines to write now.

        Args:
            last: Whether nothing is taken later, so that left out lines are reported at once.
        """
        with self._lock:
            lines = list(self._waiting)
            self._waiting.clear()
            now = self._clock.monotonic()
            if self._left_out and (last or now - self._reported >= REPORT_EVERY_S):
                self._reported = now
                time = self._clock.now()
                lines += [line_of_left_out(time, *each) for each in self._left_out.items()]
                self._left_out.clear()
            return lines


class DevOutput(logging.Handler, Observer):
    """Prints what happens in a node, and what the node logs.

    Args:
        descriptor: Where to: a file descriptor.
        clock: The time.
        selection: What is printed.
        color: Whether levels are coloured.
    """

    def __init__(
        self, descriptor: int, clock: Clock, selection: OutputSelection, *, color: bool = False
    ) -> None:
        super().__init__()
        self.selection = selection
        self._descriptor = descriptor
        self._color = color
        self._width = len(NODE)
        self._queue = LineQueue(clock)
        self._wake = threading.Event()
        self._flushed = threading.Event()
        self._flushed.set()
        self._is_broken = False
        # A daemon: a terminal that takes nothing must not keep the process from ending.
        self._thread = threading.Thread(target=self._print, name="dev output", daemon=True)

    def start(self) -> None:
        """Print from now on."""
        self._thread.start()

    def align(self, functions: Iterable[str]) -> None:
        """Make the column of names wide enough for these."""
        self._width = max(self._width, *(min(len(name), MAX_NAME) for name in functions), 0)

    def ran(self, run: RunRecord) -> None:
        """Say that a run failed."""
        self._offer(line_of_run(run))

    def wrote(self, line: LogLine) -> None:
        """Say what an instance wrote."""
        self._offer(line_of_log(line))

    def gave_up(
        self, function: str, dead: Sequence[DeadEvent], parked: Sequence[DeadEvent]
    ) -> None:
        """Say which events were given up."""
        for letter in dead:
            self._offer(line_of_dead(letter))
        for letter in parked:
            self._offer(line_of_parked(letter))

    def answered(self, answer: AnsweredRequest) -> None:
        """Say how a request was answered."""
        self._offer(line_of_answer(answer))

    def emit(self, record: logging.LogRecord) -> None:
        """Say what the node logs of itself."""
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        line = Line(round(record.created * 1_000_000), record.levelname, "", text)
        self._offer(line, is_node=True)

    def flush(self) -> None:
        """Wait until all is written, for a second at most."""
        if self._thread.is_alive():
            self._flushed.clear()
            self._wake.set()
            self._flushed.wait(FLUSH_S)

    def _offer(self, line: Line | None, *, is_node: bool = False) -> None:
        if line is None or self._is_broken or not self.selection.takes(line, is_node=is_node):
            return
        if len(line.text) > MAX_TEXT:
            # What waits is bounded in bytes as well; the mark of a cut is added when it is written.
            line = msgspec.structs.replace(line, text=line.text[: MAX_TEXT + 1])
        self._queue.put(line)
        self._wake.set()

    def _print(self) -> None:
        while True:
            self._wake.wait(REPORT_EVERY_S if self._queue.owes else None)
            self._wake.clear()
            is_last = not self._flushed.is_set()
            lines = self._queue.take(last=is_last)
            try:
                self._write("".join(map(self._text, lines)).encode("utf-8", "backslashreplace"))
            except OSError:
                # The terminal is gone; the node goes on.
                self._is_broken = True
            if is_last or self._is_broken:
                self._flushed.set()
            if self._is_broken:
                return

    def _text(self, line: Line) -> str:
        self._width = max(self._width, min(len(line.function), MAX_NAME))
        return written(line, width=self._width, color=self._color)

    def _write(self, data: bytes) -> None:
        # Not by `sys.stderr`: its lock, held by a thread that waits, would stop the process's end.
        while data:
            data = data[os.write(self._descriptor, data) :]
