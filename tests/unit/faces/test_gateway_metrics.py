"""What the door counts, as Prometheus reads it."""

from __future__ import annotations

from headrace.delivery.sources import SourceRow
from headrace.faces.gateway.metrics import Metrics
from headrace.model.slots import Slot


def lines_of(metrics: Metrics, name: str) -> list[str]:
    text = metrics.render(counters={}, lag=(), instances=(), cold_starts=()).decode()
    return [line for line in text.splitlines() if line.startswith(name)]


def test_answers_are_counted_by_route_method_and_status() -> None:
    metrics = Metrics()
    for status in (200, 200, 404):
        metrics.answered("/streams/{stream}", "POST", status, 0.001)
    metrics.answered("-", "GET", 404, 0.001)
    assert lines_of(metrics, "headrace_http_requests_total") == [
        'headrace_http_requests_total{method="GET",route="-",status="404"} 1.0',
        'headrace_http_requests_total{method="POST",route="/streams/{stream}",status="200"} 2.0',
        'headrace_http_requests_total{method="POST",route="/streams/{stream}",status="404"} 1.0',
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


def test_sources_and_slots_are_told_and_what_is_not_known_is_left_out() -> None:
    rows = [
        SourceRow("shop.a", 0, "table", "_a", slot=Slot("one", True, "reserved", 5, 100)),
        SourceRow("shop.b", 0, "table", "_b", slot=Slot("two", error="away")),
        SourceRow("shop.c", 0, "custom", "_c", "failing", "ValueError", 3),
    ]
    text = Metrics().render(counters={}, lag=(), instances=(), cold_starts=(), sources=rows)
    found = [line for line in text.decode().splitlines() if line.startswith("headrace_s")]
    assert found == [
        'headrace_source_running{function="shop.a",stream="_a",trigger="table"} 1.0',
        'headrace_source_running{function="shop.b",stream="_b",trigger="table"} 1.0',
        'headrace_source_running{function="shop.c",stream="_c",trigger="custom"} 0.0',
        'headrace_slot_behind_bytes{function="shop.a",slot="one"} 5.0',
        'headrace_slot_kept_bytes{function="shop.a",slot="one"} 100.0',
    ]
