"""What an instance says of its own log lines, and what of that is believed."""

from __future__ import annotations

import msgspec
import pytest

from headrace.environment.clock import SystemClock
from headrace.runtime.process.instance_logs import MAX_LATE_US, InstanceLine, LogReader
from headrace.runtime.protocol.messages import MARK, LoggedLine

CLOCK = SystemClock()


def read(spoken: LoggedLine, *, running: str = "shop.f:orders/0/1") -> InstanceLine:
    """The line that comes of a record."""
    lines: list[InstanceLine] = []
    reader = LogReader(
        function="shop.f", instance="i", stream="stderr", clock=CLOCK, on_log=lines.append
    )
    reader.feed(MARK + msgspec.json.encode(spoken) + b"\n", running=running)
    (line,) = lines
    return line


@pytest.mark.parametrize(
    ("claimed", "held"),
    [
        ("shop.f:orders/0/0", "shop.f:orders/0/0"),
        ("shop.f:orders/0/1", "shop.f:orders/0/1"),
        ("shop.other:orders/0/1", "shop.f:orders/0/1"),
        ("shop.f", "shop.f:orders/0/1"),
        ("victim.g:x/0/0", "shop.f:orders/0/1"),
        ("", "shop.f:orders/0/1"),
    ],
)
def test_a_line_is_of_a_run_of_its_own_function(claimed: str, held: str) -> None:
    assert read(LoggedLine(claimed, "log", "INFO", "", "x", CLOCK.now())).invocation == held


@pytest.mark.parametrize("shift", [-MAX_LATE_US - 1_000_000, 3_600_000_000, -1 << 62])
def test_a_line_was_written_a_moment_ago(shift: int) -> None:
    before = CLOCK.now()
    line = read(LoggedLine("", "log", "INFO", "", "x", before + shift))
    assert before <= line.time <= CLOCK.now()


def test_a_time_that_can_be_is_kept() -> None:
    then = CLOCK.now() - 1_000_000
    assert read(LoggedLine("", "log", "INFO", "", "x", then)).time == then


def test_no_text_of_a_line_commands_a_terminal() -> None:
    line = read(
        LoggedLine(
            "shop.f:\x1b[2J", "\x1b]0;x", "\x1b[31m", "a\x07b", "tab\t \x1b[2J \x9b1m é\n2", 0
        )
    )
    assert line.invocation == "shop.f:\\x1b[2J"
    assert (line.stream, line.level, line.logger) == ("stderr", "ERROR", "a\\x07b")
    assert line.message == "tab\t \\x1b[2J \\x9b1m é\n2"


def test_a_bare_line_commands_none_either() -> None:
    lines: list[InstanceLine] = []
    reader = LogReader(
        function="shop.f", instance="i", stream="stdout", clock=CLOCK, on_log=lines.append
    )
    reader.feed(b"\x1b[2Jbare\r\n", running="")
    assert lines[0].message == "\\x1b[2Jbare\\x0d"
