"""The lines that `headrace dev` prints: from what was observed to text, without a clock or a terminal.

In: records of telemetry. Out: a `Line` where there is something to say, and its text, aligned, on a
terminal coloured by level. Whatever a terminal would obey is written out, and what is long is cut.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import datetime, tzinfo
from typing import Final

import msgspec

from headrace.model.effects import DeadEvent
from headrace.runtime.process.instance_logs import shown
from headrace.telemetry.history import AnsweredRequest, LogLine, RunRecord

MAX_TEXT: Final = 4_000
"""Characters of a line's text."""
MAX_NAME: Final = 30
"""The width of the column of names grows up to this."""
NODE: Final = "headrace"
"""The name in front of what the node says of itself."""
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_SEVERITIES: Final = logging.getLevelNamesMapping()
_RESET: Final = "\x1b[0m"


class Line(msgspec.Struct, frozen=True, gc=False):
    """Something to say.

    Attributes:
        time: Microseconds since the epoch.
        level: A level's name, as in the logging module.
        function: The full name of a function or an app's name; "" where it is about none.
    """

    time: int
    level: str
    function: str
    text: str

    @property
    def severity(self) -> int:
        """As in the logging module; an unknown level is as `INFO`."""
        return _SEVERITIES.get(self.level.upper(), logging.INFO)


def line_of_log(line: LogLine) -> Line:
    """Return the line for output of an instance."""
    return Line(line.time, line.level, line.function, line.text)


def line_of_run(run: RunRecord) -> Line | None:
    """A run that did not succeed; None for one that did.

    A warning where its events are delivered again or given up, which is said by a line of its own;
    an error for a call, which is not repeated here.
    """
    if run.outcome == "succeeded":
        return None
    what = run.outcome.replace("-", " ")
    if run.first:
        events = f"{run.events:,} events from" if run.events != 1 else "event"
        what += f" at attempt {run.attempt}, {events} {run.first}"
        level, closer = "WARNING", f"headrace explain {run.first}"
    else:
        level, closer = "ERROR", f"headrace invocations {run.function}"
    ended = run.started + round(run.wall * 1_000_000)
    return Line(ended, level, run.function, f"{what}: {run.cause} ({closer})")


def line_of_dead(letter: DeadEvent) -> Line:
    """An event that was given up."""
    text = (
        f"dead letter {letter.position} after {_attempts(letter)}: "
        f"{letter.cause.kind}: {letter.cause.message} "
        f"(headrace dead show {letter.function} {letter.position})"
    )
    return Line(letter.failed, "ERROR", letter.function, text)


def line_of_parked(letter: DeadEvent) -> Line:
    """An event that waits until its key is redriven."""
    text = (
        f"parked {letter.position} after {_attempts(letter)}: "
        f"{letter.cause.kind}: {letter.cause.message} (headrace parked list {letter.function})"
    )
    return Line(letter.failed, "ERROR", letter.function, text)


def line_of_answer(answer: AnsweredRequest) -> Line | None:
    """A request; None for one that only looked at the node, as the console does, and was answered."""
    if not answer.function and answer.method in _READS and answer.status < 400:
        return None
    level = "INFO" if answer.status < 400 else "WARNING" if answer.status < 500 else "ERROR"
    text = f"{answer.method} {answer.path} {answer.status} in {answer.seconds * 1_000:.1f} ms"
    return Line(answer.time, level, answer.function, text)


def line_of_left_out(time: int, function: str, count: int) -> Line:
    """So many lines were not printed."""
    return Line(
        time, "WARNING", function, f"... {count:,} {'line' if count == 1 else 'lines'} left out"
    )


def names(function: str, only: Collection[str]) -> bool:
    """Return whether `only` names the function, or its app."""
    return function in only or function.partition(".")[0] in only


def written(line: Line, *, width: int, zone: tzinfo | None = None, color: bool = False) -> str:
    """The text of a line, with its end.

    Args:
        line: What to say.
        width: Of the column of names.
        zone: Of the time; the machine's own by default.
        color: Whether the level is coloured.
    """
    moment = datetime.fromtimestamp(line.time / 1_000_000, zone)
    clock = f"{moment:%H:%M:%S}.{moment.microsecond // 1_000:03}"
    level = shown(line.level.upper())[:8].ljust(8)
    name = (shown(line.function) or NODE).ljust(width)
    text = line.text if len(line.text) <= MAX_TEXT else f"{line.text[:MAX_TEXT]}…"
    margin = " " * (len(clock) + len(level) + len(name) + 5)
    text = shown(text.rstrip()).replace("\n", f"\n{margin}")
    if color and (code := _code(line.severity)):
        level = f"{code}{level}{_RESET}"
    return f"{clock}  {level} {name}  {text}\n"


def logged(line: Line) -> str:
    """The text of a line where the log itself adds time and level: one line, whatever the text holds."""
    text = line.text if len(line.text) <= MAX_TEXT else f"{line.text[:MAX_TEXT]}…"
    return f"{shown(line.function)}: {shown(text.rstrip())}".replace("\n", "\\n")


def _code(severity: int) -> str:
    """Return the terminal sequence for the colour of a level; "" for the default colour."""
    if severity >= logging.ERROR:
        return "\x1b[31m"
    if severity >= logging.WARNING:
        return "\x1b[33m"
    return "\x1b[2m" if severity < logging.INFO else ""


def _attempts(letter: DeadEvent) -> str:
    return f"{letter.attempts} {'attempt' if letter.attempts == 1 else 'attempts'}"
