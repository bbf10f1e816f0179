"""SAQ on Redis: one worker with 100 jobs at once; a job is finished after the work."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from saq import Queue

from bench.figures import arguments
from bench.peers.driver import FILL, Peer, drive
from bench.peers.servers import redis_server
from bench.peers.tally import Tally

tally = Tally() if "BENCH_TALLY" in os.environ else None


async def seen(context: dict[str, Any], *, sent: float, fill: str) -> None:
    """The handler."""
    assert tally is not None
    tally.seen(sent)


settings = {
    "queue": Queue.from_url(os.environ.get("BENCH_URL", "redis://127.0.0.1:1/0")),
    "functions": [("seen", seen)],
    "concurrency": 100,
}


def producer(url: str) -> Peer:
    """A queue of its own."""
    queue = Queue.from_url(url)

    async def send(times: Sequence[float]) -> None:
        for sent in times:
            await queue.enqueue("seen", sent=sent, fill=FILL, ttl=-1)

    return Peer(send, ["saq", "bench.peers.on_saq.settings"], {"BENCH_URL": url}, queue.disconnect)


def main() -> None:
    """Drive it."""
    parser = arguments(__doc__)
    parser.add_argument("--durable", action="store_true", help="Redis fsyncs before it answers")
    options = parser.parse_args()
    with redis_server(durable=options.durable) as url:
        drive(lambda: producer(url), quick=options.quick)


if __name__ == "__main__":
    main()
