"""FastStream on NATS JetStream (on disk) with a pull consumer, acknowledged after the work; single or batches."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any

from faststream import FastStream
from faststream.nats import JStream, NatsBroker, PullSub

from bench.figures import arguments
from bench.peers.driver import FILL, Peer, drive
from bench.peers.servers import nats_server
from bench.peers.tally import Tally

IN_FLIGHT = 256

batch = int(os.environ.get("BENCH_BATCH", "0"))
tally = Tally() if "BENCH_TALLY" in os.environ else None
broker = NatsBroker(os.environ.get("BENCH_URL", "nats://127.0.0.1:1"), logger=None)
app = FastStream(broker)
stream = JStream("bench", subjects=["bench"])

if batch:

    @broker.subscriber(
        "bench",
        stream=stream,
        durable="bench",
        pull_sub=PullSub(batch_size=batch, timeout=0.05, batch=True),
    )
    async def seen_batch(events: list[dict[str, Any]]) -> None:
        """The handler of batches."""
        assert tally is not None
        tally.seen_all(event["sent"] for event in events)

else:

    @broker.subscriber("bench", stream=stream, durable="bench", pull_sub=PullSub(batch_size=100))
    async def seen(event: dict[str, Any]) -> None:
        """The handler of single events."""
        assert tally is not None
        tally.seen(event["sent"])


def producer(url: str, size: int) -> Peer:
    """A broker of its own; publishes are acknowledged, many at once."""
    own = NatsBroker(url, logger=None)
    publisher = own.publisher("bench", stream=stream)
    started = False

    async def send(times: Sequence[float]) -> None:
        nonlocal started
        if not started:
            await own.start()
            started = True
        for low in range(0, len(times), IN_FLIGHT):
            await asyncio.gather(
                *(
                    publisher.publish({"sent": sent, "fill": FILL})
                    for sent in times[low : low + IN_FLIGHT]
                )
            )

    worker = ["faststream", "run", "bench.peers.on_faststream_nats:app", "--log-level", "error"]
    return Peer(send, worker, {"BENCH_URL": url, "BENCH_BATCH": str(size)}, own.stop)


def main() -> None:
    """Drive it."""
    parser = arguments(__doc__)
    parser.add_argument("--batch", type=int, default=0)
    options = parser.parse_args()
    with nats_server() as url:
        drive(lambda: producer(url, options.batch), quick=options.quick)


if __name__ == "__main__":
    main()
