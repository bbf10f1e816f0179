"""Bytewax: a local dataflow that keeps nothing durable, on one core; an upper mark, not a peer."""

from __future__ import annotations

import time
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, TestingSource, run_main

from bench.figures import arguments, cores, pin, report

EVENT = {"id": "0" * 32, "customer": "c-1029384", "amount": 129.95, "note": "x" * 100}


class Discarding(list[Any]):
    """A sink that keeps nothing."""

    def extend(self, items: Any) -> None:
        for _ in items:
            pass


def touch(event: dict[str, Any]) -> bool:
    """The handler."""
    return bool(event["amount"] > 100)


def main() -> None:
    """Run a bounded flow once."""
    parser = arguments(__doc__)
    parser.add_argument("--batch", type=int, default=1_000)
    options = parser.parse_args()
    count = 5_000 if options.quick else 300_000
    pin(cores()[0])
    flow = Dataflow("bench")
    source = op.input("source", flow, TestingSource([EVENT] * count, batch_size=options.batch))
    op.output("sink", op.map("touch", source, touch), TestingSink(Discarding()))
    began = time.perf_counter()
    run_main(flow)
    report(drain_per_s=count / (time.perf_counter() - began))


if __name__ == "__main__":
    main()
