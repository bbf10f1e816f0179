"""Whole topologies under seeded faults, on virtual time, judged by an independent auditor.

    python -m headrace.simulation --seeds 5000 --start 0 [--workers 2] [--judge MODULE:NAME]

In: a range of seeds. Each becomes a plan (`plan.py`) and is played (`run.py`). The judge gets nothing
but the run's account. A seed it objects to is printed with its plan and can be run alone; every 50th
is run twice and must come out the same.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import logging
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from headrace.simulation.plan import plan_of
from headrace.simulation.plan_values import Plan, PlannedFunction
from headrace.simulation.run import SimulationRun

Judge = Callable[[dict[str, Any]], Sequence[object]]

EVERY = 50
DEFAULT_JUDGE = "tests.auditor.judge:judge"


def play(seed: int, judge: Judge) -> tuple[list[str], str]:
    """Return the judge's findings in a seed's run, and the run's fingerprint."""
    return play_plan(plan_of(seed), judge)


def play_plan(plan: Plan, judge: Judge) -> tuple[list[str], str]:
    """Return the judge's findings in a plan's run, and the run's fingerprint."""
    # Whatever ends a run or its judge counts against the seed, so that the seed is named.
    try:
        account = SimulationRun(plan).play()
    except Exception as error:  # noqa: BLE001 - a fault of the platform under this seed
        return [f"the run stopped: {_text_of(error)}"], ""
    mark = hashlib.blake2b(msgspec.msgpack.encode(account), digest_size=8).hexdigest()
    try:
        return [str(finding) for finding in judge(account)], mark
    except Exception as error:  # noqa: BLE001 - it met what it had not expected, which is a finding
        return [f"the judge stopped: {_text_of(error)}"], mark


def _text_of(error: Exception) -> str:
    """The error, its cause and where it came from."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    cause = f" because of {error.__cause__!r}" if error.__cause__ is not None else ""
    return f"{type(error).__name__}: {error}{cause} ({Path(last.filename).name}:{last.lineno})"


def campaign(seeds: Sequence[int], judge_name: str) -> list[tuple[int, list[str]]]:
    """The seeds that do not hold what is promised, with what was found."""
    judge = judge_by(judge_name)
    bad: list[tuple[int, list[str]]] = []
    for seed in seeds:
        findings, mark = play(seed, judge)
        if not findings and seed % EVERY == 0:
            again = play(seed, judge)[1]
            if again != mark:
                findings = [f"not deterministic: {mark} the first time, {again} the second"]
        if findings:
            bad.append((seed, findings))
    return bad


def judge_by(name: str) -> Judge:
    """The judge called `module:name`.

    Raises:
        SystemExit: There is none; the message says how to name one.
    """
    module, _, attribute = name.partition(":")
    try:
        found: Judge = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise SystemExit(
            f"there is no judge `{name}` ({error}); run this in the repository's root, or name "
            "your own with `--judge module:function`"
        ) from error
    return found


def _log_nothing() -> None:
    """Let only the judge report: what planned faults make the platform log is expected."""
    logging.getLogger("headrace").setLevel(logging.CRITICAL)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 1 where a seed is bad."""
    parser = argparse.ArgumentParser(prog="python -m headrace.simulation")
    parser.add_argument("--seeds", type=int, default=200, help="how many")
    parser.add_argument("--start", type=int, default=0, help="the first seed")
    parser.add_argument("--workers", type=int, default=1, help="how many processes")
    parser.add_argument("--judge", default=DEFAULT_JUDGE, help="module:function")
    parser.add_argument("--plan", action="store_true", help="print the plan of --start and stop")
    asked = parser.parse_args(arguments)
    write = sys.stdout.write
    if asked.plan:
        write(describe(plan_of(asked.start)) + "\n")
        return 0
    sys.path.insert(0, "")
    seeds = range(asked.start, asked.start + asked.seeds)
    began = time.perf_counter()
    shares = [seeds[start : start + EVERY] for start in range(0, len(seeds), EVERY)]
    if asked.workers > 1:
        with ProcessPoolExecutor(asked.workers, initializer=_log_nothing) as pool:
            found = list(pool.map(campaign, shares, [asked.judge] * len(shares)))
    else:
        _log_nothing()
        found = [campaign(share, asked.judge) for share in shares]
    bad = [each for share in found for each in share]
    for seed, findings in bad[:10]:
        write(f"\nseed {seed} (again: --start {seed} --seeds 1)\n{describe(plan_of(seed))}\n")
        write("".join(f"  ! {finding}\n" for finding in findings[:8]))
    took = time.perf_counter() - began
    write(
        f"{len(seeds)} seeds, {len(bad)} bad{': ' + str([s for s, _ in bad][:50]) if bad else ''}; "
        f"{took:.1f} s, {took / max(len(seeds), 1) * 1000:.1f} ms a seed\n"
    )
    return 1 if bad else 0


def describe(plan: Plan) -> str:
    """The plan, for people."""
    lines = [
        f"  streams {plan.streams}; calm {plan.calm}; odds { {str(k): round(v, 3) for k, v in plan.odds.items()} }"
    ]
    if plan.takes:
        lines[0] += f"; a run takes {plan.takes} s"
    if plan.remote_log:
        lines[0] += "; a remote log"
    lines[0] += f"; mishaps {plan.mishaps}; shuffle {plan.shuffle}; in order {plan.in_order}"
    usual = {field.name: field.default for field in msgspec.structs.fields(PlannedFunction)}
    for each in plan.functions:
        settings = ", ".join(
            f"{name}={value!r}"
            for name, value in msgspec.structs.asdict(each).items()
            if name != "name" and value not in ((), {}, frozenset(), None, usual.get(name))
        )
        lines.append(f"  {each.name}: {settings}")
    if plan.dedupe:
        lines.append(f"  dedupe {plan.dedupe}")
    if plan.queues:
        lines.append(f"  queues {sorted(plan.queues)}")
    lines += [f"  {scene}" for scene in plan.scenes]
    for action in plan.actions:
        events = " ".join(
            f"{event.number}{'!' if event.garbage else ''}@{event.key}" for event in action.events
        )
        lines.append(
            f"  {action.at:7.3f} {action.deed} {action.target} {action.amount or ''} {events}"
        )
    return "\n".join(lines)
