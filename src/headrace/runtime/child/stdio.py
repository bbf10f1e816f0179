"""Output and log records of the author's code, as records that name their invocation.

Replaces `sys.stdout` and `sys.stderr` and adds one handler to the root logger. Whole lines are
written to the log pipes immediately; a partial line is kept until it is complete or the invocation
ends.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import time
import traceback

import msgspec

from headrace.model.redaction import Blot
from headrace.runtime.child import fork_detection
from headrace.runtime.protocol.messages import MARK, MAX_LINE_BYTES, LoggedLine

_encode = msgspec.json.Encoder().encode


class Running:
    """Current invocation, and its secrets, which must not be printed."""

    __slots__ = ("blot", "key")

    def __init__(self) -> None:
        self.key = ""
        self.blot: Blot = str


class OutputCapture(io.TextIOBase):
    """A text stream over a log pipe."""

    def __init__(self, descriptor: int, name: str, running: Running) -> None:
        self._descriptor = descriptor
        self._stream = name
        self._level = "INFO" if name == "stdout" else "ERROR"
        self._running = running
        self._half = ""
        self._forks = fork_detection.count

    @property
    def encoding(self) -> str:  # type: ignore[override]  # read-only here
        """Return UTF-8, the only encoding."""
        return "utf-8"

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the pipe's descriptor, for subprocesses that inherit it."""
        return self._descriptor

    def write(self, text: str) -> int:
        """Write the whole lines of `text`; keep a partial one."""
        if self._forks != fork_detection.count:
            # The partial line belongs to the parent, which will complete it: both would print it
            # otherwise.
            self._forks = fork_detection.count
            self._half = ""
        *lines, half = (self._half + text).split("\n")
        for line in lines:
            self._write_line(line)
        # A handler that never prints a newline must not grow the buffer.
        if len(half) > MAX_LINE_BYTES:
            self._write_line(half)
            half = ""
        self._half = half
        return len(text)

    def finish(self) -> None:
        """Write the partial line too, as the invocation has ended."""
        if self._half and self._forks == fork_detection.count:
            half, self._half = self._half, ""
            self._write_line(half)

    def _write_line(self, line: str) -> None:
        now = time.time_ns() // 1_000
        spoken = LoggedLine(
            self._running.key,
            self._stream,
            self._level,
            "",
            self._running.blot(line)[:MAX_LINE_BYTES],
            now,
        )
        write_record(self._descriptor, spoken)


class Records(logging.Handler):
    """Handler that writes whole log records to stderr's pipe."""

    def __init__(self, running: Running) -> None:
        super().__init__()
        self._running = running

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; a broken one is reported as such, never raised."""
        try:
            message = record.getMessage()
        except Exception as error:  # noqa: BLE001 - whatever the author's `__str__` raises
            message = f"{record.msg!r} (cannot be formatted: {error!r})"
        if record.exc_info is not None:
            message = f"{message}\n{''.join(traceback.format_exception(*record.exc_info)).rstrip()}"
        when = int(record.created * 1e6)
        spoken = LoggedLine(
            self._running.key,
            "log",
            record.levelname,
            record.name,
            self._running.blot(message)[:MAX_LINE_BYTES],
            when,
        )
        write_record(2, spoken)


def write_record(descriptor: int, spoken: LoggedLine) -> None:
    """Write the record as one line; a closed pipe and lone surrogates are no errors."""
    try:
        body = _encode(spoken)
    except UnicodeEncodeError:
        safe = spoken.message.encode("utf-8", "backslashreplace").decode()
        body = _encode(
            LoggedLine(
                spoken.invocation, spoken.stream, spoken.level, spoken.logger, safe, spoken.time
            )
        )
    try:
        # One write, so that lines of threads and subprocesses do not mix; there is no buffer that
        # a kill could lose.
        os.write(descriptor, MARK + body + b"\n")
    except OSError:
        return


def capture_output(running: Running) -> tuple[OutputCapture, OutputCapture]:
    """Install the streams and the log handler."""
    sys.stdout.flush()
    sys.stderr.flush()
    out, err = OutputCapture(1, "stdout", running), OutputCapture(2, "stderr", running)
    sys.stdout = out
    sys.stderr = err
    root = logging.getLogger()
    root.addHandler(Records(running))
    # The default level; one that the author set during the import stays.
    if root.level == logging.WARNING:
        root.setLevel(logging.INFO)
    return out, err
