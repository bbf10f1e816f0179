"""Runs programs in turns (A B C A B C ...), each in its own process, and keeps every figure.

Turns, because the machine's speed drifts within minutes: what is compared must be measured side by
side. A program that fails is reported once and left out of the rounds that follow.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from bench.figures import SKIPPED
from bench.metrics import Metric, Program, Reading

CHECKOUT = Path(__file__).parent.parent
PEERS_PYTHON = CHECKOUT / ".venv-peers" / "bin" / "python"
DEADLINE_S = 300.0


@dataclass
class Measured:
    """Figures by reading, one a round; why programs failed, and why some could not even try."""

    figures: dict[Reading, list[float]] = field(default_factory=dict)
    failures: dict[Program, str] = field(default_factory=dict)
    skipped: dict[Program, str] = field(default_factory=dict)


class ProgramFailed(Exception):
    """A program ended badly, took too long, or printed no figures."""


class ProgramSkipped(Exception):
    """A program needs something that this machine does not have."""


def run_program(program: Program, *, quick: bool) -> dict[str, float]:
    """Run it once and return its figures.

    Raises:
        ProgramFailed: With the last line it wrote.
        ProgramSkipped: With its reason.
    """
    python = str(PEERS_PYTHON) if program.is_peer else sys.executable
    command = [python, "-m", f"bench.{program.module}", *program.arguments]
    process = subprocess.Popen(
        [*command, "--quick"] if quick else command,
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=DEADLINE_S)
    except subprocess.TimeoutExpired:
        raise ProgramFailed(f"took longer than {DEADLINE_S:.0f} s") from None
    finally:
        # Its servers and workers are in its session; nothing may run into the next turn.
        kill_session(process)
    if process.returncode != 0:
        lines = errors.strip().splitlines() or [f"ended with {process.returncode} and no word"]
        if process.returncode == SKIPPED:
            raise ProgramSkipped(lines[-1][:300])
        raise ProgramFailed(lines[-1][:300])
    try:
        figures: dict[str, float] = json.loads(output.strip().splitlines()[-1])
    except (IndexError, ValueError):
        raise ProgramFailed("printed no figures") from None
    return figures


def kill_session(process: subprocess.Popen[str]) -> None:
    """End what a program left behind, in whichever process group of its session."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if os.getsid(int(entry.name)) == process.pid:
                os.kill(int(entry.name), signal.SIGKILL)
    process.wait()


def sessions(metrics: Iterable[Metric], *, peers: bool) -> list[list[Program]]:
    """The programs to run, in groups that take turns.

    Rows that share a program are one group, so that nothing is compared with a figure of another
    hour, and no program runs for two rows apart.
    """
    groups: list[list[Program]] = []
    for metric in metrics:
        needed = [reading.program for reading in metric.readings()]
        merged = [program for program in needed if peers or not program.is_peer]
        apart: list[list[Program]] = []
        for group in groups:
            if set(group) & set(merged):
                merged = group + merged
            else:
                apart.append(group)
        groups = [*apart, list(dict.fromkeys(merged))]
    return groups


def measure(
    metrics: Iterable[Metric],
    *,
    rounds: int,
    quick: bool,
    peers: bool,
    tell: Callable[[str], None],
) -> Measured:
    """Run what the metrics need, each group's programs in turns."""
    measured = Measured()
    groups = sessions(metrics, peers=peers)
    for number, programs in enumerate(groups, 1):
        for turn in range(1, rounds + 1):
            for program in programs:
                if program in measured.failures or program in measured.skipped:
                    continue
                tell(f"group {number} of {len(groups)}, round {turn} of {rounds}: {program.name}")
                try:
                    figures = run_program(program, quick=quick)
                except ProgramSkipped as error:
                    measured.skipped[program] = str(error)
                    tell(f"  skipped: {error}")
                    continue
                except ProgramFailed as error:
                    measured.failures[program] = str(error)
                    tell(f"  failed: {error}")
                    continue
                for name, value in figures.items():
                    measured.figures.setdefault(Reading(program, name), []).append(value)
    return measured
