"""BullMQ on Redis, in node: producer and worker in one process, 100 jobs at once."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from bench.figures import arguments, cores, report
from bench.peers.driver import BACKLOG, PATIENCE_S, SINGLES
from bench.peers.servers import BIN, executable, redis_server

SCRIPT = Path(__file__).with_name("queue.js")


def main() -> None:
    """Run the script against a fresh Redis."""
    parser = arguments(__doc__)
    parser.add_argument("--concurrency", type=int, default=100)
    options = parser.parse_args()
    counts = (300, 30) if options.quick else (BACKLOG, SINGLES)
    _, core = cores()
    with redis_server(durable=False) as url:
        port = url.rpartition(":")[2].partition("/")[0]
        command = [
            "taskset",
            "-c",
            str(core),
            executable("node"),
            str(SCRIPT),
            port,
            str(options.concurrency),
            *(str(count) for count in counts),
        ]
        done = subprocess.run(
            command,
            env={**os.environ, "NODE_PATH": str(BIN.parent / "node" / "node_modules")},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=True,
        )
    report(**json.loads(done.stdout.strip().splitlines()[-1]))


if __name__ == "__main__":
    main()
