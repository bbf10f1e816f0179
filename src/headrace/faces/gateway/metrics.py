"""What Prometheus is told: the door's own counters, and a fresh look at the node at every scrape.

Own registry, so that several nodes fit in one process. Label values are names of streams, functions
and route patterns, never paths or keys: their number is bounded by what is deployed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from headrace.delivery.runs import BOUNDS, OUTCOMES, Counters
from headrace.delivery.sources import SourceRow
from headrace.model.function import AppSpec, FunctionSpec
from headrace.runtime.views import ColdStarts

MEDIA = b"text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Durations:
    """How long a route's answers took: a count for each of `_SECONDS`, one more beyond, the sum."""

    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.buckets = [0] * (len(_SECONDS) + 1)
        self.seconds = 0.0


class Metrics:
    """The door's counters. Owned by the door; touched only on its loop."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # theirs has no annotations
        self._registry = CollectorRegistry()
        self._published = Counter(
            "headrace_published_events",
            "Events taken in over HTTP.",
            ("stream",),
            registry=self._registry,
        )
        self._duplicates = Counter(
            "headrace_duplicate_events", "Events dropped as published before.", ("stream",),
            registry=self._registry,
        )  # fmt: skip
        self._bytes = Counter(
            "headrace_published_bytes", "Bytes of payload taken in over HTTP.", ("stream",),
            registry=self._registry,
        )  # fmt: skip
        # Plain numbers: the library's own counters cost more than finding the answer's route does.
        self._requests: dict[tuple[str, str, int], int] = {}
        self._durations: dict[str, Durations] = {}
        self._snapshot = Snapshot(self._requests, self._durations)
        self._registry.register(self._snapshot)

    def published(self, stream: str, *, events: int, duplicates: int, size: int) -> None:
        """Count a publish."""
        self._published.labels(stream).inc(events - duplicates)
        self._bytes.labels(stream).inc(size)
        if duplicates:
            self._duplicates.labels(stream).inc(duplicates)

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count an answer."""
        asked = (route, method, status)
        self._requests[asked] = self._requests.get(asked, 0) + 1
        durations = self._durations.get(route)
        if durations is None:
            durations = self._durations[route] = Durations()
        durations.buckets[bisect_left(_SECONDS, seconds)] += 1
        durations.seconds += seconds

    def render(
        self,
        *,
        counters: Mapping[str, Counters],
        lag: Sequence[Any],
        instances: Sequence[Any],
        cold_starts: ColdStarts,
        sources: Sequence[SourceRow] = (),
        apps: Iterable[AppSpec] = (),
    ) -> bytes:
        """The exposition text, with the node as it is now.

        What is deployed (`apps`) counts from 0: a counter that comes with its first event has no rate.
        """
        deployed = [function for app in apps for function in app.functions]
        for stream in (stream for app in apps for stream in app.streams):
            for family in (self._published, self._bytes, self._duplicates):
                family.labels(stream.name)
        self._snapshot.counters = {each.name: Counters() for each in deployed} | dict(counters)
        self._snapshot.policies = {each.name: _policies_of(each) for each in deployed}
        self._snapshot.lag = lag
        self._snapshot.instances = instances
        self._snapshot.cold_starts = cold_starts
        self._snapshot.sources = sources
        return generate_latest(self._registry)


class Snapshot(Collector):
    """What the node looked like at the last scrape, as metric families."""

    def __init__(
        self,
        requests: Mapping[tuple[str, str, int], int],
        durations: Mapping[str, Durations],
    ) -> None:
        self._requests = requests
        self._durations = durations
        self.counters: Mapping[str, Counters] = {}
        self.policies: Mapping[str, Sequence[str]] = {}
        self.lag: Sequence[Any] = ()
        self.instances: Sequence[Any] = ()
        self.cold_starts = ColdStarts()
        self.sources: Sequence[SourceRow] = ()

    def collect(self) -> Iterable[Metric]:
        """Every family."""
        yield from self._request_families()
        yield from self._function_families()
        lag = GaugeMetricFamily(
            "headrace_lag_events", "Events a function has not finished yet.",
            labels=("function", "stream", "partition"),
        )  # fmt: skip
        for row in self.lag:
            lag.add_metric((row.function, row.stream, str(row.partition)), row.lag)
        yield lag
        tally: dict[tuple[str, str], int] = {}
        for instance in self.instances:
            name = getattr(instance, "function", "") or getattr(instance, "app", "")
            state = str(getattr(instance.state, "value", instance.state))
            tally[name, state] = tally.get((name, state), 0) + 1
        instances = GaugeMetricFamily(
            "headrace_instances", "Instances by function and state.", labels=("function", "state")
        )
        for (name, state), count in sorted(tally.items()):
            instances.add_metric((name, state), count)
        yield instances
        yield self._cold_start_family()
        yield from self._source_families()

    def _source_families(self) -> Iterator[Metric]:
        running = GaugeMetricFamily(
            "headrace_source_running", "Whether a trigger brings events in: 1, or 0 where it fails.",
            labels=("function", "stream", "trigger"),
        )  # fmt: skip
        behind = GaugeMetricFamily(
            "headrace_slot_behind_bytes", "Of its server's log, not yet told by a replication slot.",
            labels=("function", "slot"),
        )  # fmt: skip
        kept = GaugeMetricFamily(
            "headrace_slot_kept_bytes", "Of its server's log, kept for a replication slot.",
            labels=("function", "slot"),
        )  # fmt: skip
        for row in self.sources:
            running.add_metric((row.function, row.stream, row.trigger), row.state == "running")
            if row.slot is not None:
                for family, count in (
                    (behind, row.slot.behind_bytes), (kept, row.slot.kept_bytes),
                ):  # fmt: skip
                    # What the database did not say is left out: 0 would be good news.
                    if count is not None:
                        family.add_metric((row.function, row.slot.name), count)
        yield from (running, behind, kept)

    def _request_families(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "headrace_http_requests",
            "HTTP requests answered.",
            labels=("route", "method", "status"),
        )
        for (route, method, status), count in sorted(self._requests.items()):
            requests.add_metric((route, method, str(status)), count)
        yield requests
        durations = HistogramMetricFamily(
            "headrace_http_request_seconds", "Seconds from headers to answer.", labels=("route",)
        )
        for route, known in sorted(self._durations.items()):
            durations.add_metric((route,), _cumulative(_SECONDS, known.buckets), known.seconds)
        yield durations

    def _function_families(self) -> Iterator[Metric]:
        invocations = CounterMetricFamily(
            "headrace_invocations", "Invocations by outcome.", labels=("function", "outcome")
        )
        events = CounterMetricFamily(
            "headrace_handled_events", "Events handed to functions.", labels=("function",)
        )
        dead = CounterMetricFamily(
            "headrace_dead_letters", "Events given up.", labels=("function",)
        )
        parked = CounterMetricFamily(
            "headrace_parked_events", "Events parked.", labels=("function",)
        )
        left_out = CounterMetricFamily(
            "headrace_left_out_events", "Events done without a run, by the policy that left them out.",
            labels=("function", "policy"),
        )  # fmt: skip
        seconds = HistogramMetricFamily(
            "headrace_invocation_seconds", "Seconds an invocation took.", labels=("function",)
        )
        for name, known in sorted(self.counters.items()):
            for outcome in sorted({*OUTCOMES, *known.outcomes}):
                invocations.add_metric((name, outcome), known.outcomes.get(outcome, 0))
            events.add_metric((name,), known.events)
            dead.add_metric((name,), known.dead)
            parked.add_metric((name,), known.parked)
            for policy in sorted({*self.policies.get(name, ()), *known.left_out}):
                left_out.add_metric((name, policy), known.left_out.get(policy, 0))
            seconds.add_metric((name,), _cumulative(BOUNDS, known.buckets), known.seconds)
        yield from (invocations, events, dead, parked, left_out, seconds)

    def _cold_start_family(self) -> Metric:
        name, starts = "headrace_cold_start_seconds", self.cold_starts
        family = SummaryMetricFamily(
            name, "Seconds cold starts took; quantiles of the latest ones.",
            count_value=starts.count, sum_value=starts.seconds,
        )  # fmt: skip
        ordered = sorted(starts.latest)
        for quantile in (0.5, 0.95, 0.99):
            if ordered:
                index = min(int(quantile * len(ordered)), len(ordered) - 1)
                family.add_sample(name, {"quantile": str(quantile)}, ordered[index])
        return family


def _policies_of(function: FunctionSpec) -> list[str]:
    """The policies by which events of a function may be left out."""
    said = {policy: getattr(function, policy) for policy in ("rate", "debounce", "singleton")}
    return [policy for policy, value in said.items() if value is not None]


def _cumulative(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    """Buckets as Prometheus has them: each counts all that is not above its bound."""
    names = [*map(str, bounds), "+Inf"]
    return list(zip(names, map(float, accumulate(counts)), strict=True))
