"""Celery with a Redis broker: one solo worker, results ignored, acknowledged after the work."""

from __future__ import annotations

import os
from collections.abc import Sequence

from celery import Celery

from bench.figures import arguments
from bench.peers.driver import FILL, Peer, drive
from bench.peers.servers import redis_server
from bench.peers.tally import Tally

app = Celery("bench", broker=os.environ.get("BENCH_URL", "redis://127.0.0.1:1/0"))
app.conf.update(
    task_ignore_result=True,
    task_acks_late=True,
    worker_prefetch_multiplier=1_000,
    broker_connection_retry_on_startup=True,
)
tally = Tally() if "BENCH_TALLY" in os.environ else None


@app.task(name="bench.seen")
def seen(sent: float, fill: str) -> None:
    """The handler."""
    assert tally is not None
    tally.seen(sent)


def send(times: Sequence[float]) -> None:
    """Celery has no bulk call."""
    for sent in times:
        seen.delay(sent, FILL)


def main() -> None:
    """Drive it."""
    parser = arguments(__doc__)
    parser.add_argument("--durable", action="store_true", help="Redis fsyncs before it answers")
    options = parser.parse_args()
    with redis_server(durable=options.durable) as url:
        app.conf.broker_url = url
        worker = [
            "celery",
            "-A",
            "bench.peers.on_celery",
            "worker",
            "-P",
            "solo",
            "-c",
            "1",
            "-l",
            "ERROR",
            "--without-gossip",
            "--without-mingle",
            "--without-heartbeat",
        ]
        drive(lambda: Peer(send, worker, {"BENCH_URL": url}), quick=options.quick)


if __name__ == "__main__":
    main()
