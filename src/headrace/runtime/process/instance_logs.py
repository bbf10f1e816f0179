"""Lines that instances write on stdout and stderr, with the invocation that was running.

An instance writes its records (prints, log records) as one JSON array after the control character
RS, so that they name their invocation however late they are read. Plain lines (C code,
subprocesses) belong to the run that is active when they arrive. Lines are limited in length and in
rate, long ones counting for several; dropped lines are counted and reported once. A record's claims
are checked: its run must be one of its own function, its time about now, its level a level, and
control characters for terminals are escaped.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

from headrace.environment.clock import Clock
from headrace.model.redaction import Blot
from headrace.runtime.protocol.messages import MARK, MAX_LINE_BYTES, LoggedLine

MAX_LINES_PER_SECOND = 2_000
MAX_LINES_BURST = 10_000
MAX_LATE_US = 10_000_000
"""The maximum age of a record when it is read; an older time is replaced by the current one."""
MAX_WORD = 200
_STREAMS = frozenset({"stdout", "stderr", "log"})
_LEVEL = re.compile(r"[A-Za-z][A-Za-z0-9 _-]{0,31}")
_CONTROLS = {
    code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"
}
"""Characters that control a terminal, and their escaped form."""
LINE_BYTES = 1_024
"""A line counts once for each started block of so many bytes."""


class InstanceLine(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One line, with its function, instance and invocation.

    Attributes:
        function: The full name, or the app's name for lines of the import.
        instance: Its id, "" for the zygote.
        invocation: The invocation's key, "" outside of one.
        stream: `stdout`, `stderr` or `log` (the logging module).
        level: The record's level name; `INFO` for stdout and `ERROR` for stderr.
        logger: The logger's name.
        message: The text, capped.
        time: Microseconds since the epoch.
    """

    function: str
    instance: str
    message: str
    invocation: str = ""
    stream: str = "stdout"
    level: str = "INFO"
    logger: str = ""
    time: int = 0


def shown(text: str) -> str:
    """Return the text with terminal controls escaped."""
    return text if text.isprintable() else text.translate(_CONTROLS)


_decoder = msgspec.json.Decoder(LoggedLine)


class LogReader:
    """Splits one pipe's bytes into lines. Owned by the pipe's reader; buffers one line at most."""

    def __init__(
        self,
        *,
        function: str,
        instance: str,
        stream: str,
        clock: Clock,
        on_log: Callable[[InstanceLine], None],
        blot: Blot = str,
    ) -> None:
        self._blot = blot
        self._function = function
        self._instance = instance
        self._stream = stream
        self._level = "INFO" if stream == "stdout" else "ERROR"
        self._clock = clock
        self._on_log = on_log
        self._rest = b""
        self._allowance = float(MAX_LINES_BURST)
        self._refilled = clock.monotonic()
        self._dropped = 0

    def feed(self, data: bytes, *, running: str) -> None:
        """Take bytes and log the lines they complete; plain ones belong to `running`."""
        self._refill()
        *lines, rest = (self._rest + data).split(b"\n")
        # A process that never writes a newline must not grow the buffer.
        if len(rest) > 2 * MAX_LINE_BYTES:
            lines.append(rest)
            rest = b""
        self._rest = rest
        for line in lines:
            self._handle_line(line, running)

    @property
    def is_flooded(self) -> bool:
        """Return whether lines are being dropped."""
        return self._dropped > 0

    def close(self, *, running: str) -> None:
        """Log the rest: the pipe has ended."""
        rest, self._rest = self._rest, b""
        if rest:
            self._handle_line(rest, running)
        self._report_dropped()

    def _refill(self) -> None:
        now = self._clock.monotonic()
        gained = (now - self._refilled) * MAX_LINES_PER_SECOND
        self._allowance = min(self._allowance + gained, float(MAX_LINES_BURST))
        self._refilled = now
        if self._allowance >= 1:
            self._report_dropped()

    def _report_dropped(self) -> None:
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            self._emit(
                "",
                self._stream,
                "WARNING",
                "headrace",
                f"{dropped} lines were dropped: more than {MAX_LINES_PER_SECOND} a second",
                None,
            )

    def _handle_line(self, line: bytes, running: str) -> None:
        if not line:
            return
        if self._allowance < 1:
            self._dropped += 1
            return
        self._allowance -= 1 + min(len(line), MAX_LINE_BYTES) // LINE_BYTES
        # Not only at the start: a subprocess may have written half a line to the same pipe just
        # before.
        mark = line.find(MARK)
        if mark >= 0:
            if mark:
                self._bare(line[:mark], running)
            try:
                said = _decoder.decode(line[mark + 1 :])
            except (msgspec.DecodeError, RecursionError):
                self._bare(line[mark + 1 :], running)
            else:
                self._record(said, running)
        else:
            self._bare(line, running)

    def _record(self, said: LoggedLine, running: str) -> None:
        """Log a record of an instance, as far as its claims are possible."""
        own = said.invocation == running or said.invocation.startswith(f"{self._function}:")
        now = self._clock.now()
        self._emit(
            said.invocation[:MAX_WORD] if own else running,
            said.stream if said.stream in _STREAMS else self._stream,
            said.level if _LEVEL.fullmatch(said.level) else self._level,
            said.logger[:MAX_WORD],
            self._blot(said.message)[:MAX_LINE_BYTES],
            said.time if now - MAX_LATE_US <= said.time <= now else now,
        )

    def _bare(self, line: bytes, running: str) -> None:
        # Redacted before the cut: a part of a secret would not be recognised.
        text = self._blot(line.decode("utf-8", "backslashreplace"))
        self._emit(running, self._stream, self._level, "", text[:MAX_LINE_BYTES], None)

    def _emit(
        self, invocation: str, stream: str, level: str, logger: str, message: str, time: int | None
    ) -> None:
        self._on_log(
            InstanceLine(
                function=self._function,
                instance=self._instance,
                invocation=shown(invocation),
                stream=stream,
                level=level,
                logger=shown(logger),
                message=shown(message),
                time=self._clock.now() if time is None else time,
            )
        )
