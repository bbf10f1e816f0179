"""Prints and log records of the author's code, as records that name their invocation.

Replaces `sys.stdout` and `sys.stderr` and adds one handler to the root logger. Whole lines go to
the log pipes at once; a half line waits for its end or for the end of the invocation.
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
from headrace.runtime.protocol.messages import MARK, MAX_LINE_BYTES, Spoken

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
        """Always UTF-8."""
        return "utf-8"

    def writable(self) -> bool:
        """Yes."""
        return True

    def fileno(self) -> int:
        """The pipe itself, for subprocesses that inherit it."""
        return self._descriptor

    def write(self, text: str) -> int:
        """Speak the whole lines of `text`, keep a half one."""
        if self._forks != fork_detection.count:
            # The half line is for the process to finish that began it.
            self._forks = fork_detection.count
            self._half = ""
        *lines, half = (self._half + text).split("\n")
        for line in lines:
            self._speak(line)
        if len(half) > MAX_LINE_BYTES:
            self._speak(half)
            half = ""
        self._half = half
        return len(text)

    def finish(self) -> None:
        """The invocation has ended: speak the half line too."""
        if self._half and self._forks == fork_detection.count:
            half, self._half = self._half, ""
            self._speak(half)

    def _speak(self, line: str) -> None:
        now = time.time_ns() // 1_000
        spoken = Spoken(
            self._running.key,
            self._stream,
            self._level,
            "",
            self._running.blot(line)[:MAX_LINE_BYTES],
            now,
        )
        write_record(self._descriptor, spoken)


class Records(logging.Handler):
    """The logging module's records, whole, on stderr."""

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
        spoken = Spoken(
            self._running.key,
            "log",
            record.levelname,
            record.name,
            self._running.blot(message)[:MAX_LINE_BYTES],
            when,
        )
        write_record(2, spoken)


def write_record(descriptor: int, spoken: Spoken) -> None:
    """Write it as one line; a reader that is gone, or a lone surrogate, is ignored."""
    try:
        body = _encode(spoken)
    except UnicodeEncodeError:
        safe = spoken.message.encode("utf-8", "backslashreplace").decode()
        body = _encode(
            Spoken(spoken.invocation, spoken.stream, spoken.level, spoken.logger, safe, spoken.time)
        )
    try:
        os.write(descriptor, MARK + body + b"\n")
    except OSError:
        return


def speak_up(running: Running) -> tuple[OutputCapture, OutputCapture]:
    """Put the streams and the handler in place."""
    sys.stdout.flush()
    sys.stderr.flush()
    out, err = OutputCapture(1, "stdout", running), OutputCapture(2, "stderr", running)
    sys.stdout = out
    sys.stderr = err
    root = logging.getLogger()
    root.addHandler(Records(running))
    if root.level == logging.WARNING:
        root.setLevel(logging.INFO)
    return out, err
