"""What the server counts, as Prometheus reads it."""

from __future__ import annotations

from typing import Any

from headrace import App, Event, Sample
from headrace.admin.lag import LagRow
from headrace.admin.sources import SourceRow
from headrace.environment.time_slices import SLICE_S, Slices
from headrace.http.metrics import PIECE, Metrics, NodeSnapshot, _function_families
from headrace.model.function import AppSpec, FunctionSpec
from headrace.model.replication_slot import Slot
from headrace.runtime.instance_views import ColdStarts
from headrace.testing.virtual_time import VirtualClock, VirtualLoop


def rendered(metrics: Metrics, clock: VirtualClock | None = None, **more: Any) -> str:
    loop = VirtualLoop()
    slices = Slices(clock or VirtualClock(loop))
    return loop.drive(metrics.render(seen(**more), slices)).decode()


def seen(**more: Any) -> NodeSnapshot:
    none: dict[str, Any] = {"counters": {}, "lag": (), "instances": (), "cold_starts": ColdStarts()}
    return NodeSnapshot(**none | more)


def lines_of(metrics: Metrics, name: str) -> list[str]:
    text = rendered(metrics)
    return [line for line in text.splitlines() if line.startswith(name)]


def test_answers_are_counted_by_route_method_and_status() -> None:
    metrics = Metrics()
    for status in (200, 200, 404):
        metrics.answered("/-/v1/streams/{stream}", "POST", status, 0.001)
    metrics.answered("-", "GET", 404, 0.001)
    assert lines_of(metrics, "headrace_http_requests_total") == [
        'headrace_http_requests_total{method="GET",route="-",status="404"} 1.0',
        'headrace_http_requests_total{method="POST",route="/-/v1/streams/{stream}",status="200"} 2.0',
        'headrace_http_requests_total{method="POST",route="/-/v1/streams/{stream}",status="404"} 1.0',
    ]


def test_an_answers_time_counts_in_every_bucket_it_is_not_above() -> None:
    metrics = Metrics()
    for seconds in (0.0001, 0.001, 0.3, 60.0):
        metrics.answered("/x", "GET", 200, seconds)
    buckets = {
        line.split('le="')[1].split('"')[0]: float(line.rpartition(" ")[2])
        for line in lines_of(metrics, "headrace_http_request_seconds_bucket")
    }
    assert buckets["0.0005"] == 1
    assert buckets["0.001"] == 2
    assert buckets["0.25"] == 2
    assert buckets["0.5"] == 3
    assert buckets["10.0"] == 3
    assert buckets["+Inf"] == 4
    (count,) = lines_of(metrics, "headrace_http_request_seconds_count")
    (total,) = lines_of(metrics, "headrace_http_request_seconds_sum")
    assert count.endswith(" 4.0")
    assert abs(float(total.rpartition(" ")[2]) - 60.3011) < 1e-6


def test_sources_and_slots_are_exported_and_what_is_not_known_is_left_out() -> None:
    rows = [
        SourceRow("shop.a", 0, "table", "_a", slot=Slot("one", True, "reserved", 5, 100)),
        SourceRow("shop.b", 0, "table", "_b", slot=Slot("two", error="away")),
        SourceRow("shop.c", 0, "custom", "_c", "failing", "ValueError", 3),
    ]
    text = rendered(Metrics(), sources=rows)
    found = [line for line in text.splitlines() if line.startswith("headrace_s")]
    assert found == [
        'headrace_source_running{function="shop.a",stream="_a",trigger="table"} 1.0',
        'headrace_source_running{function="shop.b",stream="_b",trigger="table"} 1.0',
        'headrace_source_running{function="shop.c",stream="_c",trigger="custom"} 0.0',
        'headrace_slot_behind_bytes{function="shop.a",slot="one"} 5.0',
        'headrace_slot_kept_bytes{function="shop.a",slot="one"} 100.0',
    ]


def test_what_is_deployed_counts_from_nothing() -> None:
    app = App("shop")
    orders = app.stream("orders")

    @app.function(orders, sample=Sample(1))
    def count(event: Event[int]) -> None: ...

    text = rendered(Metrics(), apps=[app.spec()])
    found = set(text.splitlines())
    assert {
        'headrace_published_events_total{stream="orders"} 0.0',
        'headrace_published_bytes_total{stream="orders"} 0.0',
        'headrace_duplicate_events_total{stream="orders"} 0.0',
        'headrace_handled_events_total{function="shop.count"} 0.0',
        'headrace_dead_letters_total{function="shop.count"} 0.0',
        'headrace_parked_events_total{function="shop.count"} 0.0',
        'headrace_left_out_events_total{function="shop.count",policy="sample"} 0.0',
        'headrace_invocation_seconds_count{function="shop.count"} 0.0',
        *(
            f'headrace_invocations_total{{function="shop.count",outcome="{outcome}"}} 0.0'
            for outcome in ("succeeded", "partial", "failed", "crashed", "timed-out")
        ),
    } <= found


def test_cold_starts_are_a_summary() -> None:
    starts = ColdStarts((0.1, 0.3, 0.2), 5, 1.5)
    text = rendered(Metrics(), cold_starts=starts)
    assert [line for line in text.splitlines() if "cold_start" in line][1:] == [
        "# TYPE headrace_cold_start_seconds summary",
        "headrace_cold_start_seconds_count 5.0",
        "headrace_cold_start_seconds_sum 1.5",
        'headrace_cold_start_seconds{quantile="0.5"} 0.2',
        'headrace_cold_start_seconds{quantile="0.95"} 0.3',
        'headrace_cold_start_seconds{quantile="0.99"} 0.3',
    ]


class Slow(VirtualClock):
    """Every look at it takes a third of a slice; counts how often others came in between."""

    rested = 0
    seconds = 0.0

    def monotonic(self) -> float:
        self.seconds += SLICE_S / 3
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.rested += 1
        await super().sleep(seconds)


def test_a_family_of_many_rows_is_exported_once_and_others_come_in_between() -> None:
    rows = [
        LagRow("shop.f", "orders", number, 0, 5, 0, 5, 0, 1.0, 1, "running")
        for number in range(40 * PIECE + 1)
    ]
    clock = Slow(VirtualLoop())
    lines = rendered(Metrics(), clock, lag=rows).splitlines()
    assert lines.count("# TYPE headrace_lag_events gauge") == 1
    assert [line for line in lines if line.startswith("headrace_lag_events")] == [
        f'headrace_lag_events{{function="shop.f",partition="{row.partition}",stream="orders"}} 5.0'
        for row in rows
    ]
    # A slice is over at the fourth look at the clock at most: no more than four pieces at a time.
    assert clock.rested >= 40 // 4


def test_every_family_is_exported_even_without_rows() -> None:
    types = [line for line in rendered(Metrics()).splitlines() if line.startswith("# TYPE")]
    assert len(types) == len(set(types)) == 17


def test_functions_without_rows_in_a_family_are_steps_too() -> None:
    functions = tuple(
        FunctionSpec(name=f"shop.f{number}", app="shop") for number in range(40 * PIECE)
    )
    steps = _function_families(seen(apps=(AppSpec(name="shop", functions=functions),)))
    left_out = [piece for piece in steps if piece.name == "headrace_left_out_events"]
    assert not any(piece.samples for piece in left_out)
    assert len(left_out) == 40
