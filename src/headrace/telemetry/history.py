"""Result of each invocation: a bounded history of runs and log lines, and counters for metrics.

Kept in memory only; the durable facts are in the store. Read by the HTTP server, the command line and tests.
"""

from __future__ import annotations

import itertools
import logging
from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import msgspec

from headrace.model.effects import DeadEvent, Missed
from headrace.model.invocation import (
    BatchInvocation,
    CallInvocation,
    CoalescedInvocation,
    ConsumerInvocation,
    Invocation,
)
from headrace.model.outcome import Cause, Crashed, Outcome, Returned, TimedOut
from headrace.model.record import Chunk, positions

_logger = logging.getLogger("headrace.delivery")
MAX_RUNS = 1_000
MAX_FAILED = 100
"""Failed runs of all functions together, in addition to the latest of each."""
MAX_LINES = 5_000
MAX_OUTPUTS = 256
"""Streams that one function is remembered to have published to."""
# Besides the number of lines: a single line may be large.
MAX_LINES_BYTES = 8 << 20
"""What the texts of the log lines that are remembered take at most, together."""
BOUNDS = (
    0.0005,
    0.001,
    0.002,
    0.005,
    0.01,
    0.02,
    0.05,
    0.1,
    0.2,
    0.5,
    1.0,
    2.0,
    5.0,
    10.0,
    30.0,
    60.0,
)
Of: TypeAlias = Callable[[str], bool]
"""Returns whether the runs and log lines of a function are included."""


class RunRecord(msgspec.Struct, frozen=True, gc=False):
    """One invocation, as it ended.

    Attributes:
        started: Microseconds since the epoch.
        wall: Seconds from hand-over to outcome.
        outcome: `succeeded`, `partial` (some events did, others failed), `failed`, `crashed` or `timed-out`.
        first: The first event's position, as text; "" for a call, whose payload is in no stream.
        cause: Why it failed, as text; "" where it did not.
    """

    function: str
    key: str
    instance: str
    started: int
    wall: float
    events: int
    attempt: int
    outcome: str
    first: str
    cause: str = ""
    cold: bool = False


class LogLine(msgspec.Struct, frozen=True, gc=False):
    """A line an instance wrote, tied to what it was doing."""

    number: int
    time: int
    function: str
    instance: str
    key: str
    level: str
    text: str


class AnsweredRequest(msgspec.Struct, frozen=True, gc=False):
    """A request that was answered.

    Attributes:
        time: Microseconds since the epoch.
        path: As it came, still percent-encoded, without the query.
        seconds: From headers to answer.
        function: The function that answered, or the app of a proxy; "" at the platform's own paths.
    """

    time: int
    method: str
    path: str
    status: int
    seconds: float
    function: str = ""


class Observer:
    """Receives the events of a node, on its loop. Does nothing by default, and must never wait."""

    def ran(self, run: RunRecord) -> None:
        """A run has ended."""

    def wrote(self, line: LogLine) -> None:
        """An instance wrote a line, or the platform wrote one for its function."""

    def gave_up(
        self, function: str, dead: Sequence[DeadEvent], parked: Sequence[DeadEvent]
    ) -> None:
        """Events were dead-lettered or parked."""

    def answered(self, answer: AnsweredRequest) -> None:
        """A request was answered."""


OUTCOMES = ("succeeded", "partial", "failed", "crashed", "timed-out")


class Counters:
    """Counters of one function since this node started."""

    __slots__ = (
        "buckets",
        "dead",
        "events",
        "left_out",
        "outcomes",
        "outputs",
        "parked",
        "seconds",
    )

    def __init__(self) -> None:
        self.outcomes: dict[str, int] = defaultdict(int)
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0
        self.events = 0
        self.dead = 0
        self.parked = 0
        self.outputs: set[str] = set()
        self.left_out: dict[str, int] = defaultdict(int)


class RunHistory:
    """Owned by the node; written by partition workers and the fleet, on the loop.

    Args:
        on_output: Called when a function was seen to publish where it was not before, which is then
            among `new_outputs`; without it that is not noted.
        observer: Receives everything that is recorded here, and requests.
    """

    def __init__(
        self, on_output: Callable[[], object] | None = None, observer: Observer | None = None
    ) -> None:
        self.observer = observer
        self.new_outputs: list[tuple[str, str]] = []
        self._on_output = on_output
        # `deque(maxlen)` drops the oldest by itself, without a check on the hot path.
        self._runs: dict[str, deque[RunRecord]] = defaultdict(lambda: deque(maxlen=MAX_RUNS))
        self._latest: deque[RunRecord] = deque(maxlen=MAX_RUNS)
        # Separate: among a thousand runs a second a failure would be gone before anyone looks.
        self._failed: deque[RunRecord] = deque(maxlen=MAX_FAILED)
        self._lines: deque[LogLine] = deque()
        self._line_bytes = self._number = 0
        self.counters: dict[str, Counters] = defaultdict(Counters)

    def record(self, run: RunRecord, batches: int = 1) -> None:
        """Remember a run that ended; of a group of coalesced batches, all its batches as one, and count each of them."""
        self._runs[run.function].append(run)
        self._latest.append(run)
        if run.outcome != "succeeded":
            self._failed.append(run)
        counters = self.counters[run.function]
        counters.outcomes[run.outcome] += batches
        counters.events += run.events
        counters.seconds += run.wall
        # A group of coalesced batches counts as that many runs of equal length: only their sum is
        # known.
        counters.buckets[bisect_left(BOUNDS, run.wall / batches)] += batches
        if self.observer is not None:
            self.observer.ran(run)

    def published(self, function: str, streams: Iterable[str]) -> None:
        """Remember where a function was seen to publish."""
        known = self.counters[function].outputs
        for stream in streams:
            # A function that makes up stream names must not grow this without bound.
            if stream not in known and len(known) < MAX_OUTPUTS:
                known.add(stream)
                # Without a listener the list would grow, and no caller would empty it.
                if self._on_output is not None:
                    self.new_outputs.append((function, stream))
                    self._on_output()

    def observed(self) -> dict[str, set[str]]:
        """By function, where it was seen to publish."""
        return {name: counters.outputs for name, counters in self.counters.items()}

    def gave_up(
        self, function: str, *, dead: Sequence[DeadEvent] = (), parked: Sequence[DeadEvent] = ()
    ) -> None:
        """Count events that were dead-lettered or parked."""
        self.counters[function].dead += len(dead)
        self.counters[function].parked += len(parked)
        if self.observer is not None:
            self.observer.gave_up(function, dead, parked)

    def stopped(self, function: str, chunk: Chunk, cause: Cause, attempts: int) -> None:
        """Log that a partition is parked: it stops at the first event of `chunk` until someone acts."""
        position = f"{chunk.stream}/{chunk.partition}/{chunk.start}"
        # Also to the log of the process: a parked partition needs a person, not a metric.
        _logger.error(
            "`%s`: partition parked at %s after %d attempts: %s: %.500r (headrace explain %s)",
            function,
            position,
            attempts,
            cause.kind,
            cause.message,
            position,
        )

    def left_out(self, function: str, why: str, chunks: Sequence[Chunk], now: int) -> None:
        """Count events that are done without a run, by policy, and say so among the log lines."""
        for chunk in chunks:
            self.skipped(function, why, chunk.size)
            last = f" to {chunk.end - 1}" if chunk.size > 1 else ""
            self.write(
                time=now,
                function=function,
                instance="",
                key="",
                level="info",
                text=f"left out by its `{why}`: "
                f"{chunk.stream}/{chunk.partition}/{chunk.start}{last}",
            )

    def missed(self, function: str, partition: int, missed: Missed, now: int) -> None:
        """Count events that retention removed before the function had them, and say so."""
        self.skipped(function, "retention", missed.count)
        place = f"{missed.stream}/{partition}/{missed.low} to {missed.high - 1}"
        text = (
            f"lost to retention: {missed.count:,} events ({place}) were removed before they were "
            f"delivered; raise the retention of `{missed.stream}`, or let `{function}` work faster"
        )
        _logger.error("`%s`: %s", function, text)
        self.write(time=now, function=function, instance="", key="", level="error", text=text)

    def skipped(self, function: str, why: str, count: int) -> None:
        """Count records without content for the function; there are too many of them to log."""
        self.counters[function].left_out[why] += count

    def write(
        self, *, time: int, function: str, instance: str, key: str, level: str, text: str
    ) -> None:
        """Remember a log line."""
        self._number += 1
        line = LogLine(self._number, time, function, instance, key, level, text)
        if self.observer is not None:
            self.observer.wrote(line)
        self._lines.append(line)
        self._line_bytes += len(text)
        while len(self._lines) > MAX_LINES or self._line_bytes > MAX_LINES_BYTES:
            # Oldest first; lines are numbered, so a reader notices a gap.
            self._line_bytes -= len(self._lines.popleft().text)

    def recent(
        self, function: str | None = None, limit: int = 100, of: Of = lambda _: True
    ) -> list[RunRecord]:
        """The runs that ended last, the last first: of one function, or the functions that `of` says."""
        known = self._latest if function is None else self._runs.get(function, ())
        return _last(known, limit, of)

    def failed(self, limit: int = MAX_FAILED, of: Of = lambda _: True) -> list[RunRecord]:
        """Those that did not succeed."""
        return _last(self._failed, limit, of)

    def logs(
        self,
        function: str | None = None,
        *,
        limit: int = 100,
        after: int = 0,
        of: Of = lambda _: True,
    ) -> list[LogLine]:
        """The newest log lines numbered above `after`, oldest first: of one function, or those `of` says."""
        found: list[LogLine] = []
        # From the end: the newest are wanted, and older ones than `after` need no look.
        for line in reversed(self._lines):
            if line.number <= after or len(found) == limit:
                break
            if (function is None or line.function == function) and of(line.function):
                found.append(line)
        return found[::-1]


def _last(known: Sequence[RunRecord], limit: int, of: Of) -> list[RunRecord]:
    # `islice` stops at the limit: with a filter the whole history need not be read.
    return list(itertools.islice((run for run in reversed(known) if of(run.function)), limit))


def runs_of(
    invocation: BatchInvocation, outcome: Outcome, wall: float
) -> list[tuple[RunRecord, int]]:
    """The runs that ended so, and how many batches each of them stands for.

    Of a group of coalesced batches the batches that came through are one, and the one that ended it is another.
    """
    ended = run_of(invocation, outcome, wall)
    if type(invocation) is not CoalescedInvocation or ended.outcome in {"crashed", "timed-out"}:
        return [(ended, 1)]
    events = invocation.size
    if (returned := outcome.returned) is not None and returned.untouched >= 0:
        # Events from this index on did not run.
        events = returned.untouched
    batches = -(-events // invocation.each)
    if ended.outcome == "succeeded":
        return [(msgspec.structs.replace(ended, events=events), batches)]
    # The batches before the last succeeded: a group ends at the first that fails.
    before = (batches - 1) * invocation.each
    last = msgspec.structs.replace(ended, wall=wall / batches, events=events - before)
    if not before:
        return [(last, 1)]
    good = msgspec.structs.replace(
        ended, wall=wall - last.wall, events=before, outcome="succeeded", cause=""
    )
    return [
        (good, batches - 1),
        (msgspec.structs.replace(last, first=_place(invocation, before)), 1),
    ]


def _place(invocation: BatchInvocation, index: int) -> str:
    """The position of one event, as text."""
    return str(next(itertools.islice(positions(invocation.chunks), index, None)))


def run_of(invocation: Invocation, outcome: Outcome, wall: float) -> RunRecord:
    """The run that ended so."""
    # The usual case first: every invocation passes here.
    if outcome.failure is None:
        kind, cause = "succeeded", ""
    else:
        kind, cause = _end_of(outcome, invocation)
    # By exact type, which is cheaper than `match`: this runs for every invocation.
    if type(invocation) is CallInvocation:
        place, events = "", 1
    elif type(invocation) is ConsumerInvocation:
        place, events = str(invocation.held[0]) if invocation.held else "", 0
    else:
        chunks = invocation.chunks
        # From the first chunk alone: a list of all positions would cost every invocation.
        head = chunks[0]
        start = head.first + head.low if head.offsets is None else head.start
        place = f"{head.stream}/{head.partition}/{start}"
        events = head.high - head.low if len(chunks) == 1 else invocation.size
    usage = outcome.usage
    return RunRecord(
        invocation.function,
        invocation.key,
        usage.instance,
        invocation.now,
        wall,
        events,
        invocation.attempt,
        kind,
        place,
        cause,
        usage.cold,
    )


def _end_of(outcome: Outcome, invocation: Invocation) -> tuple[str, str]:
    match outcome:
        case Returned(error=Cause() as failed):
            return "failed", f"{failed.kind}: {failed.message}"
        case Returned(failures=(first, *_) as failures):
            ran = invocation.size if outcome.untouched < 0 else outcome.untouched
            # Of a group of coalesced batches only the last one failed, and it is reported separately.
            if type(invocation) is CoalescedInvocation:
                ran -= (ran - 1) // invocation.each * invocation.each
            kind = "failed" if len(failures) >= ran else "partial"
            return kind, f"{first.cause.kind}: {first.cause.message}"
        case Crashed(cause=failed):
            return "crashed", f"{failed.kind}: {failed.message}"
        case TimedOut(cause=failed):
            return "timed-out", failed.message
        case Returned():
            return "succeeded", ""
