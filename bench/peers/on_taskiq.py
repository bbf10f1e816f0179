"""taskiq on a Redis list or a Redis stream (acknowledged after the work), one worker process."""

from __future__ import annotations

import os
from collections.abc import Sequence

from taskiq import AsyncBroker
from taskiq_redis import ListQueueBroker, RedisStreamBroker

from bench.figures import arguments
from bench.peers.driver import FILL, Peer, drive
from bench.peers.servers import redis_server
from bench.peers.tally import Tally


def broker_of(kind: str, url: str) -> AsyncBroker:
    """The broker of either kind."""
    return RedisStreamBroker(url) if kind == "stream" else ListQueueBroker(url)


tally = Tally() if "BENCH_TALLY" in os.environ else None
broker = broker_of(
    os.environ.get("BENCH_KIND", "list"), os.environ.get("BENCH_URL", "redis://127.0.0.1:1/0")
)


async def seen(sent: float, fill: str) -> None:
    """The handler."""
    assert tally is not None
    tally.seen(sent)


broker.register_task(seen, task_name="bench.seen")


def producer(kind: str, url: str) -> Peer:
    """Its own broker, since the module's belongs to the worker."""
    own = broker_of(kind, url)
    task = own.register_task(seen, task_name="bench.seen")
    started = False

    async def send(times: Sequence[float]) -> None:
        nonlocal started
        if not started:
            await own.startup()
            started = True
        for sent in times:
            await task.kiq(sent, FILL)

    worker = [
        "taskiq",
        "worker",
        "bench.peers.on_taskiq:broker",
        "--workers",
        "1",
        "--log-level",
        "ERROR",
    ]
    return Peer(send, worker, {"BENCH_URL": url, "BENCH_KIND": kind}, own.shutdown)


def main() -> None:
    """Drive it."""
    parser = arguments(__doc__)
    parser.add_argument("--kind", choices=("list", "stream"), default="stream")
    parser.add_argument("--durable", action="store_true", help="Redis fsyncs before it answers")
    options = parser.parse_args()
    with redis_server(durable=options.durable) as url:
        drive(lambda: producer(options.kind, url), quick=options.quick)


if __name__ == "__main__":
    main()
