"""Prometheus metrics: the HTTP server's own counters, and the node's state read at every scrape.

Written a few rows at a time: a node may have thousands, and a long scrape must not block the event loop. Label values
are names of streams, functions and route patterns, never paths or keys: deployments bound their number.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any, Final

from prometheus_client import generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from headrace.admin.lag import LagRow
from headrace.admin.sources import SourceRow
from headrace.environment.time_slices import Slices
from headrace.model.function import AppSpec, FunctionSpec
from headrace.runtime.instance_views import ColdStarts
from headrace.telemetry.history import BOUNDS, OUTCOMES, Counters

MEDIA = b"text/plain; version=0.0.4; charset=utf-8"
PIECE: Final = 10
"""Rows of a family that are written at a time; a row may be a histogram of a dozen lines."""
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Durations:
    """Durations of a route's answers: a count for each bound of `_SECONDS`, one beyond them, and the sum."""

    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.buckets = [0] * (len(_SECONDS) + 1)
        self.seconds = 0.0


@dataclass(frozen=True, kw_only=True)
class NodeSnapshot:
    """The node at a scrape.

    Attributes:
        apps: What is deployed; its counters are exported from 0 on.
    """

    counters: Mapping[str, Counters]
    lag: Sequence[LagRow]
    instances: Sequence[Any]
    cold_starts: ColdStarts
    sources: Sequence[SourceRow] = ()
    apps: Sequence[AppSpec] = ()


class Metrics:
    """The HTTP server's counters. Owned by the HTTP server; touched only on its loop."""

    def __init__(self) -> None:
        # Plain numbers: a counter of `prometheus_client` takes a lock and costs more than resolving the
        # answer's route.
        self._published: Counter[str] = Counter()
        self._duplicates: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._requests: dict[tuple[str, str, int], int] = {}
        self._durations: dict[str, Durations] = {}

    def published(self, stream: str, *, events: int, duplicates: int, size: int) -> None:
        """Count a publish."""
        self._published[stream] += events - duplicates
        self._bytes[stream] += size
        if duplicates:
            self._duplicates[stream] += duplicates

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count an answer."""
        counted = (route, method, status)
        self._requests[counted] = self._requests.get(counted, 0) + 1
        durations = self._durations.get(route)
        if durations is None:
            durations = self._durations[route] = Durations()
        durations.buckets[bisect_left(_SECONDS, seconds)] += 1
        durations.seconds += seconds

    async def render(self, node: NodeSnapshot, slices: Slices) -> bytes:
        """Return the exposition text of the counters and the node's state."""
        text: list[bytes] = []
        last = ""
        async for piece in slices.over(self._families(node)):
            written = generate_latest(_One(piece))
            # `# HELP` and `# TYPE` may appear once for each family, so all pieces but the first lose
            # them.
            text.append(written if piece.name != last else written.split(b"\n", 2)[2])
            last = piece.name
        await slices.step()
        return b"".join(text)

    def _families(self, node: NodeSnapshot) -> Iterator[Metric]:
        """Yield every family in consecutive pieces."""
        yield from self._stream_families(node)
        yield from self._request_families()
        yield from _function_families(node)
        yield from _pieces(
            GaugeMetricFamily,
            "headrace_lag_events",
            "Events a function has not finished yet.",
            ("function", "stream", "partition"),
            (((row.function, row.stream, str(row.partition)), row.lag) for row in node.lag),
        )
        # By function and state, not by instance: instances come and go, and each would leave a
        # dead time series.
        tally: Counter[tuple[str, str]] = Counter()
        for instance in node.instances:
            name = getattr(instance, "function", "") or getattr(instance, "app", "")
            tally[name, str(getattr(instance.state, "value", instance.state))] += 1
        yield from _pieces(
            GaugeMetricFamily,
            "headrace_instances",
            "Instances by function and state.",
            ("function", "state"),
            sorted(tally.items()),
        )
        yield _cold_start_family(node.cold_starts)
        yield from _source_families(node.sources)

    def _stream_families(self, node: NodeSnapshot) -> Iterator[Metric]:
        streams = [stream.name for app in node.apps for stream in app.streams]
        for name, words, known in (
            ("headrace_published_events", "Events taken in over HTTP.", self._published),
            ("headrace_duplicate_events", "Events dropped as published before.", self._duplicates),
            ("headrace_published_bytes", "Bytes of payload taken in over HTTP.", self._bytes),
        ):
            # From 0: a counter that first appears with 1 has no increase for `rate()`, so the
            # first event would be missed.
            counts = dict.fromkeys(streams, 0) | known
            rows = (((stream,), count) for stream, count in counts.items())
            yield from _pieces(CounterMetricFamily, name, words, ("stream",), rows)

    def _request_families(self) -> Iterator[Metric]:
        yield from _pieces(
            CounterMetricFamily,
            "headrace_http_requests",
            "HTTP requests answered.",
            ("route", "method", "status"),
            (
                ((route, method, str(status)), count)
                for (route, method, status), count in sorted(self._requests.items())
            ),
        )
        yield from _pieces(
            HistogramMetricFamily,
            "headrace_http_request_seconds",
            "Seconds from headers to answer.",
            ("route",),
            (
                ((route,), _cumulative(_SECONDS, known.buckets), known.seconds)
                for route, known in sorted(self._durations.items())
            ),
        )


class _One(Collector):
    """A registry of one piece."""

    def __init__(self, piece: Metric) -> None:
        self._piece = piece

    def collect(self) -> Iterable[Metric]:
        return (self._piece,)


def _pieces(
    kind: Callable[..., Any],
    name: str,
    words: str,
    labels: Sequence[str],
    rows: Iterable[tuple[Any, ...] | None],
) -> Iterator[Metric]:
    """A family in pieces of at most `PIECE` rows, one at least; a row is what `add_metric` takes.

    None stands for what has no row: thousands of them in a row must not be one step.
    """
    make = partial(kind, name, words, labels=labels)
    piece, held = make(), 0
    for row in rows:
        if held == PIECE:
            yield piece
            piece, held = make(), 0
        if row is not None:
            piece.add_metric(*row)
        held += 1
    yield piece


def _source_families(sources: Sequence[SourceRow]) -> Iterator[Metric]:
    yield from _pieces(
        GaugeMetricFamily,
        "headrace_source_running",
        "Whether a trigger brings events in: 1, or 0 where it fails.",
        ("function", "stream", "trigger"),
        (((row.function, row.stream, row.trigger), row.state == "running") for row in sources),
    )
    slots = [(row.function, row.slot) for row in sources if row.slot is not None]
    for name, words, counts in (
        (
            "headrace_slot_behind_bytes",
            "Of its server's log, not yet read through a replication slot.",
            [slot.behind_bytes for _, slot in slots],
        ),
        (
            "headrace_slot_kept_bytes",
            "Of its server's log, kept for a replication slot.",
            [slot.kept_bytes for _, slot in slots],
        ),
    ):
        # A value that the database did not report is left out: 0 would look like a healthy slot.
        rows = (
            ((function, slot.name), count)
            for (function, slot), count in zip(slots, counts, strict=True)
            if count is not None
        )
        yield from _pieces(GaugeMetricFamily, name, words, ("function", "slot"), rows)


def _function_families(node: NodeSnapshot) -> Iterator[Metric]:
    deployed = {each.name: each for app in node.apps for each in app.functions}
    none = Counters()
    found = [(name, node.counters.get(name, none)) for name in sorted({*deployed, *node.counters})]
    yield from _pieces(
        CounterMetricFamily,
        "headrace_invocations",
        "Invocations by outcome.",
        ("function", "outcome"),
        (
            ((name, outcome), known.outcomes.get(outcome, 0))
            for name, known in found
            for outcome in sorted({*OUTCOMES, *known.outcomes})
        ),
    )
    for family, words, counts in (
        (
            "headrace_handled_events",
            "Events handed to functions.",
            (((name,), known.events) for name, known in found),
        ),
        (
            "headrace_dead_letters",
            "Events given up.",
            (((name,), known.dead) for name, known in found),
        ),
        (
            "headrace_parked_events",
            "Events parked.",
            (((name,), known.parked) for name, known in found),
        ),
    ):
        yield from _pieces(CounterMetricFamily, family, words, ("function",), counts)
    yield from _pieces(
        CounterMetricFamily,
        "headrace_left_out_events",
        "Events done without a run, by the policy that left them out.",
        ("function", "policy"),
        (
            row
            for name, known in found
            for row in _left_out_rows(name, _policies_of(deployed.get(name)), known.left_out)
        ),
    )
    yield from _pieces(
        HistogramMetricFamily,
        "headrace_invocation_seconds",
        "Seconds an invocation took.",
        ("function",),
        (((name,), _cumulative(BOUNDS, known.buckets), known.seconds) for name, known in found),
    )


def _cold_start_family(starts: ColdStarts) -> Metric:
    name = "headrace_cold_start_seconds"
    # A summary: quantiles of the latest starts cannot be a histogram, and `promtool` rejects them
    # as a gauge.
    family = SummaryMetricFamily(
        name,
        "Seconds cold starts took; quantiles of the latest ones.",
        count_value=starts.count,
        sum_value=starts.seconds,
    )
    ordered = sorted(starts.latest)
    for quantile in (0.5, 0.95, 0.99):
        if ordered:
            index = min(int(quantile * len(ordered)), len(ordered) - 1)
            family.add_sample(name, {"quantile": str(quantile)}, ordered[index])
    return family


def _left_out_rows(
    name: str, policies: Iterable[str], left_out: Mapping[str, int]
) -> list[tuple[Any, ...] | None]:
    """Return a row for each policy; None alone for a function that leaves nothing out."""
    shown = sorted({*policies, *left_out})
    return [((name, policy), left_out.get(policy, 0)) for policy in shown] or [None]


def _policies_of(function: FunctionSpec | None) -> list[str]:
    """Return the policies that may drop events of a function; none where it is no longer deployed."""
    said = {policy: getattr(function, policy) for policy in ("sample", "debounce", "singleton")}
    return [policy for policy, value in said.items() if value is not None]


def _cumulative(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    """Convert counts to cumulative buckets, as Prometheus expects them: each includes all smaller ones."""
    names = [*map(str, bounds), "+Inf"]
    return list(zip(names, map(float, accumulate(counts)), strict=True))
