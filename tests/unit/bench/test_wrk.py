"""What wrk says becomes figures, and a report of failures none."""

import pytest
from bench.wrk import WrkWentWrong, read_report

REPORT = """Running 2s test @ http://127.0.0.1:8000/
  1 threads and 32 connections
  Latency Distribution
     50%  379.00us
     75%    0.86ms
     99%    3.10ms
  140396 requests in 2.00s, 25.1MB read
Requests/sec:  70198.21
"""


def test_a_report_becomes_rate_and_latencies_in_microseconds() -> None:
    assert read_report(REPORT) == {"per_s": 70198.21, "us_p50": 379.0, "us_p99": 3100.0}


@pytest.mark.parametrize(
    "bad",
    [
        REPORT + "  Non-2xx or 3xx responses: 12\n",
        REPORT + "  Socket errors: connect 0, read 4, write 0, timeout 0\n",
        "unable to connect to 127.0.0.1:8000 Connection refused",
        "",
    ],
)
def test_failed_requests_are_not_a_figure(bad: str) -> None:
    with pytest.raises(WrkWentWrong):
        read_report(bad)
