"""`python -m bench`: measure, judge, print and keep; `python -m bench compare A.json B.json`.

`python -m bench page A.json [B.json ...]` puts results on the documentation's page."""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from pathlib import Path

from bench.machine import describe_commit, describe_machine, load_now
from bench.metrics import Metric
from bench.page import PageHasNoPlace, rewrite
from bench.report import aligned, render
from bench.results import NotComparable, as_document, compare, write
from bench.rows import METRICS
from bench.turns import CHECKOUT, PEERS_PYTHON, measure
from bench.verdicts import judge

RESULTS = CHECKOUT / "bench" / "results"
PAGE = CHECKOUT / "docs" / "performance.md"
ROUNDS = 5
BUSY = 0.7
"""A load above this before anything was started means that somebody else is at work."""


def select(wanted: list[str]) -> list[Metric]:
    """The metrics whose number (`6`, `6a`) or name is asked for; all where nothing is."""
    if not wanted:
        return list(METRICS)
    return [
        metric
        for metric in METRICS
        if any(
            w in {metric.number, str(metric.row)} or (not w.isdigit() and w in metric.name)
            for w in wanted
        )
    ]


def run(options: argparse.Namespace) -> int:
    """Measure; the exit code says whether a target was missed."""
    metrics = select(options.only)
    if not metrics:
        names = "\n".join(f"  {metric.number:4} {metric.name}" for metric in METRICS)
        sys.stderr.write(f"bench: nothing is called {options.only}; there are\n{names}\n")
        return 2
    if options.peers and not PEERS_PYTHON.exists():
        sys.stderr.write("bench: the peers are not installed; run `bench/peers/setup.sh` first\n")
        return 2
    rounds = options.rounds or (1 if options.quick else ROUNDS)
    load = load_now()
    if load > BUSY:
        sys.stderr.write(
            f"bench: the load is {load:.1f} before anything ran; figures will be blurred\n"
        )

    def tell(what: str) -> None:
        sys.stderr.write(what + "\n")

    measured = measure(metrics, rounds=rounds, quick=options.quick, peers=options.peers, tell=tell)
    lines = judge(metrics, measured)
    sys.stdout.write(render(lines, measured, quick=options.quick) + "\n")
    document = as_document(
        lines,
        measured,
        machine=describe_machine(),
        commit=describe_commit(CHECKOUT),
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        rounds=rounds,
        quick=options.quick,
        load=load,
    )
    if not options.quick:
        sys.stdout.write(f"written to {write(RESULTS, document).relative_to(CHECKOUT)}\n")
    return (
        1
        if measured.failures or (not options.quick and any(line.met is False for line in lines))
        else 0
    )


def compare_files(options: argparse.Namespace) -> int:
    """Print how figures changed between two result files."""
    before, after = (json.loads(Path(path).read_text()) for path in (options.before, options.after))
    try:
        table = compare(before, after)
    except NotComparable as error:
        sys.stderr.write(f"bench: {error}\n")
        return 2
    sys.stdout.write(aligned(table) + "\n")
    return 0


def write_page(options: argparse.Namespace) -> int:
    """Put the figures of result files on the page."""
    documents = [json.loads(Path(path).read_text()) for path in options.results]
    try:
        rewrite(PAGE, *documents)
    except PageHasNoPlace as error:
        sys.stderr.write(f"bench: {error}\n")
        return 2
    return 0


def main() -> int:
    """Parse and do."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.set_defaults(do=run)
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="a number or part of a name; repeatable",
    )
    parser.add_argument("--quick", action="store_true", help="one round, few samples: does it run?")
    parser.add_argument("--peers", action="store_true", help="also measure the peers")
    parser.add_argument("--rounds", type=int, help=f"default {ROUNDS}")
    commands = parser.add_subparsers()
    comparing = commands.add_parser("compare", help="compare two result files of one machine")
    comparing.add_argument("before")
    comparing.add_argument("after")
    comparing.set_defaults(do=compare_files)
    paging = commands.add_parser("page", help="put figures into the documentation")
    paging.add_argument("results", nargs="+", help="where several have a metric, the last counts")
    paging.set_defaults(do=write_page)
    options = parser.parse_args()
    do = options.do
    return int(do(options))


if __name__ == "__main__":
    sys.exit(main())
