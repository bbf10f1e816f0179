"""Log pipes cut into lines, whoever wrote them."""

from __future__ import annotations

import msgspec

from headrace.runtime.process.instance_logs import (
    LINE_BYTES,
    MAX_LINES_BURST,
    InstanceLine,
    LogReader,
)
from headrace.runtime.protocol.messages import MARK, MAX_LINE_BYTES, LoggedLine


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> int:
        return 5

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError

    async def timeout(self, awaitable: object, seconds: float | None) -> object:
        raise NotImplementedError


def reader(clock: Clock | None = None) -> tuple[LogReader, list[InstanceLine]]:
    lines: list[InstanceLine] = []
    made = LogReader(
        function="shop.price",
        instance="i",
        stream="stderr",
        clock=clock or Clock(),  # type: ignore[arg-type]  # its waits are never used
        on_log=lines.append,
    )
    return made, lines


def test_lines_are_whole_however_they_arrive() -> None:
    made, lines = reader()
    made.feed(b"one\ntw", running="k")
    made.feed(b"o\nthree", running="k")
    assert [line.message for line in lines] == ["one", "two"]
    made.close(running="k")
    assert [line.message for line in lines] == ["one", "two", "three"]
    assert {(line.invocation, line.stream, line.level) for line in lines} == {
        ("k", "stderr", "ERROR")
    }


def test_a_record_names_its_own_invocation() -> None:
    clock = Clock()
    made, lines = reader(clock)
    said = LoggedLine(
        "shop.price:orders/0/9", "log", "WARNING", "shop", "two\nlines", clock.now() - 1
    )
    made.feed(b"bare" + MARK + msgspec.json.encode(said) + b"\n", running="later")
    assert [(line.message, line.invocation) for line in lines] == [
        ("bare", "later"),
        ("two\nlines", "shop.price:orders/0/9"),
    ]
    assert (lines[1].level, lines[1].logger, lines[1].time) == (
        "WARNING",
        "shop",
        clock.now() - 1,
    )


def test_the_epoch_is_the_time_of_a_record() -> None:
    made, lines = reader()
    made.feed(
        MARK + msgspec.json.encode(LoggedLine("k", "log", "INFO", "", "old", 0)) + b"\n", running=""
    )
    assert lines[0].time == 0


def test_a_forged_record_is_a_bare_line() -> None:
    made, lines = reader()
    made.feed(MARK + b"[1, 2\n" + MARK + b"[" * 5000 + b"\n" + MARK + b"\xff\xfe\n", running="k")
    assert [line.invocation for line in lines] == ["k"] * 3


def test_an_endless_line_is_cut() -> None:
    made, lines = reader()
    for _ in range(40):
        made.feed(b"x" * 1000, running="")
    made.close(running="")
    assert max(len(line.message) for line in lines) == MAX_LINE_BYTES


def test_a_flood_is_capped_and_what_was_dropped_is_said() -> None:
    clock = Clock()
    made, lines = reader(clock)
    made.feed(b"spam\n" * (MAX_LINES_BURST + 100), running="")
    assert len(lines) == MAX_LINES_BURST
    clock.seconds = 1.0
    made.feed(b"calm\n", running="")
    assert [line.message for line in lines[-2:]] == [
        "100 lines were dropped: more than 2000 a second",
        "calm",
    ]


def test_a_long_line_counts_for_as_many_as_it_takes() -> None:
    clock = Clock()
    made, lines = reader(clock)
    line = b"x" * (4 * LINE_BYTES - 1) + b"\n"
    flooded = []
    for count, second in ((MAX_LINES_BURST // 4, 0.0), (1, 0.0), (1, 1.0)):
        clock.seconds = second
        made.feed(line * count, running="")
        flooded.append(made.is_flooded)
    assert flooded == [False, True, False]
    assert len(lines) == MAX_LINES_BURST // 4 + 2
