"""What the door counts, as Prometheus reads it."""

from __future__ import annotations

from headrace.faces.gateway.metrics import Metrics


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
