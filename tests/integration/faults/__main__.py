"""The fault campaign: `python -m tests.integration.faults`.

Ends with 1 where a promise was broken; every finding names the invariant and how to make it again.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time

from tests.integration.faults.campaign import FAULTS, rounds, total
from tests.integration.faults.figures import record


def main() -> int:
    """Run the faults that were asked for."""
    names = [fault.name for fault in FAULTS]
    parser = argparse.ArgumentParser(prog="campaign", description=__doc__)
    parser.add_argument(
        "--only",
        nargs="+",
        choices=names,
        metavar="FAULT",
        default=names,
        help=f"some of: {', '.join(names)}",
    )
    parser.add_argument(
        "--scale",
        type=float,
        default=1.0,
        help="a share of the long campaign's counts (1: all; 0: the smoke share)",
    )
    parser.add_argument("--times", type=int, help="how often, whatever the scale says")
    parser.add_argument("--seed", type=int, default=int(time.time()) % 1_000_000)
    parser.add_argument(
        "--record",
        action="store_true",
        help="add the figures to docs/reliability.json and its page",
    )
    asked = parser.parse_args()
    # A campaign that is told to end takes its nodes and mounts along.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    say(f"seed {asked.seed}")
    rows = []
    for fault in FAULTS:
        if fault.name not in asked.only:
            continue
        times = asked.times or max(fault.smoke, round(fault.long * asked.scale))
        results = []
        for found in rounds(fault, times, asked.seed):
            results.append(found)
            for finding in found.findings:
                say(f"{fault.name}: {finding}")
        if results:
            rows.append(row := total(fault.name, results))
            say(
                f"{row['fault']}: {row['times']} times, {row['events']} events, "
                f"{row['rounds_failed']} of {row['rounds']} rounds failed {row['figures']}"
            )
    if asked.record:
        record(rows, asked.seed)
    return int(any(row["rounds_failed"] for row in rows))


def say(text: str) -> None:
    """Tell whoever waits."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)  # noqa: T201 - a command line


if __name__ == "__main__":
    sys.exit(main())
