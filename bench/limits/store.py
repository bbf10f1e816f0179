"""A bare loop that inserts one blob per batch into SQLite, WAL and FULL: durable when it returns.

The bytes are those our log would store for the batch, ready-made; the limit pays for nothing else.
"""

from __future__ import annotations

import time

import apsw
import msgspec

from bench.figures import arguments, percentile, report, scratch

EVENT_BYTES = 200
BUDGET_S = 0.7


def blob(count: int) -> bytes:
    """A msgpack array of `count` events of about 200 bytes, as the log keeps them."""
    return msgspec.msgpack.encode([[b"x" * (EVENT_BYTES - 3)]] * count)


def main() -> None:
    """Measure one batch size."""
    parser = arguments(__doc__)
    parser.add_argument("--batch", type=int, default=1_000)
    options = parser.parse_args()
    body = blob(options.batch)
    with scratch("store") as folder:
        connection = apsw.Connection(str(folder / "store.db"))
        connection.execute("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL")
        connection.execute(
            "CREATE TABLE log (id INTEGER PRIMARY KEY, count INTEGER, body BLOB) STRICT"
        )
        budget = 0.1 if options.quick else BUDGET_S
        samples: list[float] = []
        began = time.perf_counter()
        while (now := time.perf_counter()) - began < budget:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO log (count, body) VALUES (?, ?)", (options.batch, body))
            connection.execute("COMMIT")
            samples.append(time.perf_counter() - now)
        took = time.perf_counter() - began
        connection.close()
    report(per_s=len(samples) * options.batch / took, commit_ms_p50=percentile(samples, 0.5) * 1e3)


if __name__ == "__main__":
    main()
