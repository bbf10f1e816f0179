"""Lines wait for a terminal, the node does not: the queue has a bound, and so has each function."""

from __future__ import annotations

from headrace.environment.clock import SystemClock
from headrace.node.config import refuses_color
from headrace.node.dev_lines import Line
from headrace.node.dev_output import BURST, LINES_PER_SECOND, MAX_WAITING, LineQueue


class StoppedClock(SystemClock):
    """A clock that goes on only when a test moves it."""

    def __init__(self) -> None:
        self.seconds = 100.0
        self.monotonic = lambda: self.seconds

    def now(self) -> int:
        return 0


def put(queue: LineQueue, function: str, count: int) -> None:
    for number in range(count):
        queue.put(Line(0, "INFO", function, str(number)))


def test_a_function_that_floods_leaves_the_others_their_lines() -> None:
    clock = StoppedClock()
    queue = LineQueue(clock)
    put(queue, "a.loud", BURST + 1_234)
    put(queue, "a.calm", 2)
    lines = queue.take()
    assert [line.function for line in lines[:BURST]] == ["a.loud"] * BURST
    assert [line.text for line in lines[BURST:]] == ["0", "1", "... 1,234 lines left out"]
    clock.seconds += 0.5
    put(queue, "a.loud", LINES_PER_SECOND)
    assert len(queue.take()) == LINES_PER_SECOND // 2
    assert queue.owes
    assert queue.take() == []
    clock.seconds += 0.5
    assert [line.text for line in queue.take()] == [f"... {LINES_PER_SECOND // 2} lines left out"]
    assert not queue.owes


def test_where_nothing_is_taken_so_many_lines_wait_and_the_others_are_counted() -> None:
    queue = LineQueue(StoppedClock())
    functions = 2 * MAX_WAITING // BURST
    for number in range(functions):
        put(queue, f"a.f{number}", BURST)
    lines = queue.take(last=True)
    assert len(lines) == MAX_WAITING + functions // 2
    assert {line.text for line in lines[MAX_WAITING:]} == {f"... {BURST:,} lines left out"}


def test_no_color_is_honoured() -> None:
    assert refuses_color({"NO_COLOR": "1"})
    assert refuses_color({"TERM": "dumb"})
    assert not refuses_color({"NO_COLOR": "", "TERM": "xterm"})
