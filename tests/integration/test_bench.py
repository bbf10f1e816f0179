"""The bench suite as somebody runs it: from the checkout, as a command."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

FAILING = """
from bench.metrics import Program
from bench.turns import ProgramFailed, run_program
try:
    run_program(Program("limits.nothing"), quick=True)
except ProgramFailed as error:
    print(error)
"""


SKIPPING = """
from bench.metrics import Program
from bench.turns import ProgramSkipped, run_program
try:
    run_program(Program("limits.gateway"), quick=True)
except ProgramSkipped as error:
    print("skipped:", error)
"""


def run(*arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=None if path is None else {**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_quick_run_prints_the_table_and_keeps_nothing() -> None:
    results = ROOT / "bench" / "results"
    before = sorted(results.glob("*.json"))
    done = run("-m", "bench", "--quick", "--only", "5")
    assert done.returncode == 0, done.stderr
    assert "durable append, one producer, batches of 100" in done.stdout
    assert "a quick run" in done.stdout
    assert sorted(results.glob("*.json")) == before


def test_a_name_that_nothing_has_is_answered_with_the_names_there_are() -> None:
    done = run("-m", "bench", "--only", "nonsense")
    assert done.returncode == 2
    assert "6a   stream, batch 128, no outputs" in done.stderr


def test_a_program_that_fails_is_told_by_its_last_words() -> None:
    assert "No module named bench.limits.nothing" in run("-c", FAILING).stdout


def test_a_program_whose_client_is_not_installed_is_skipped_with_the_reason(tmp_path: Path) -> None:
    done = run("-c", SKIPPING, path=str(tmp_path))
    assert "skipped: `wrk` is not installed" in done.stdout
