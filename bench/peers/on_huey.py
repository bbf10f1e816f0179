"""huey on Redis or on SQLite with fsync: one thread. A task leaves the queue before the work."""

from __future__ import annotations

import os
from collections.abc import Sequence

from huey import Huey, RedisHuey, SqliteHuey

from bench.figures import arguments, scratch
from bench.peers.driver import FILL, Peer, drive
from bench.peers.servers import redis_server
from bench.peers.tally import Tally


def queue_of(url: str) -> Huey:
    """A queue in Redis, or in the SQLite file that the URL names."""
    if url.startswith("redis:"):
        return RedisHuey("bench", url=url, results=False)
    return SqliteHuey("bench", filename=url, fsync=True, results=False)


tally = Tally() if "BENCH_TALLY" in os.environ else None
huey = queue_of(os.environ.get("BENCH_URL", "redis://127.0.0.1:1/0"))


def seen(sent: float, fill: str) -> None:
    """The handler."""
    assert tally is not None
    tally.seen(sent)


# huey knows a task by its module, which has another name when the driver runs it as a program.
seen.__module__ = "bench.peers.on_huey"
huey.task(name="seen")(seen)


def producer(url: str) -> Peer:
    """A queue of its own."""
    task = queue_of(url).task(name="seen")(seen)

    def send(times: Sequence[float]) -> None:
        for sent in times:
            task(sent, FILL)

    worker = ["huey_consumer", "bench.peers.on_huey.huey", "-w", "1", "-k", "thread", "-q"]
    return Peer(send, worker, {"BENCH_URL": url})


def main() -> None:
    """Drive it."""
    parser = arguments(__doc__)
    parser.add_argument("--store", choices=("redis", "sqlite"), default="redis")
    parser.add_argument("--durable", action="store_true", help="Redis fsyncs before it answers")
    options = parser.parse_args()
    if options.store == "sqlite":
        with scratch("huey") as folder:
            drive(lambda: producer(str(folder / "huey.db")), quick=options.quick)
        return
    with redis_server(durable=options.durable) as url:
        drive(lambda: producer(url), quick=options.quick)


if __name__ == "__main__":
    main()
