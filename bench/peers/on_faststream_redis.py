"""FastStream on a Redis stream with a consumer group, acknowledged after the work; one by one or in batches."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from faststream import FastStream
from faststream.redis import RedisBroker, StreamSub

from bench.figures import arguments
from bench.peers.driver import FILL, Peer, drive
from bench.peers.servers import redis_server
from bench.peers.tally import Tally

batch = int(os.environ.get("BENCH_BATCH", "0"))
tally = Tally() if "BENCH_TALLY" in os.environ else None
broker = RedisBroker(os.environ.get("BENCH_URL", "redis://127.0.0.1:1/0"), logger=None)
app = FastStream(broker)

if batch:

    @broker.subscriber(
        stream=StreamSub(
            "bench", group="bench", consumer="one", batch=True, max_records=batch, last_id=">"
        )
    )
    async def seen_batch(events: list[dict[str, Any]]) -> None:
        """The handler of batches."""
        assert tally is not None
        tally.seen_all(event["sent"] for event in events)

else:

    @broker.subscriber(
        stream=StreamSub("bench", group="bench", consumer="one", max_records=100, last_id=">")
    )
    async def seen(event: dict[str, Any]) -> None:
        """The handler of single events."""
        assert tally is not None
        tally.seen(event["sent"])


def producer(url: str, size: int) -> Peer:
    """A broker of its own; the group must exist before what it shall read."""
    own = RedisBroker(url, logger=None)
    connected = False

    async def send(times: Sequence[float]) -> None:
        nonlocal connected
        if not connected:
            await own.connect()
            connection = own.config.broker_config.connection.client
            await connection.xgroup_create("bench", "bench", id="0", mkstream=True)
            connected = True
        for sent in times:
            await own.publish({"sent": sent, "fill": FILL}, stream="bench")

    worker = ["faststream", "run", "bench.peers.on_faststream_redis:app", "--log-level", "error"]
    return Peer(send, worker, {"BENCH_URL": url, "BENCH_BATCH": str(size)}, own.stop)


def main() -> None:
    """Drive it."""
    parser = arguments(__doc__)
    parser.add_argument("--batch", type=int, default=0)
    parser.add_argument("--durable", action="store_true", help="Redis fsyncs before it answers")
    options = parser.parse_args()
    with redis_server(durable=options.durable) as url:
        drive(lambda: producer(url, options.batch), quick=options.quick)


if __name__ == "__main__":
    main()
