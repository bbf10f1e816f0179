"""Changes one thing at a time in a copy of the code and asks whether any test notices.

    python scripts/mutants.py --minutes 10 --seed 7 [--only src/headrace/delivery/intake/lanes.py] [--seeds 60]

In: the rooms whose faults cost most (`delivery`, `storage/kv`, `runtime`). Out: the mutants that
survived, as `file:line what -> what`. A seed draws the same mutants in the same order until the code
changes. Each is tried on the unit tests that name its module, then on its room's, then on simulated
apps and seeds; one that hangs counts as noticed. The checkout is never touched. What survived before, and
why, is in `docs/mutants.md`.
"""

from __future__ import annotations

import argparse
import ast
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random  # noqa: TID251 - draws which mutants, from a seed
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
ROOMS = ("src/headrace/delivery", "src/headrace/storage/kv", "src/headrace/runtime")
COPIED = ("src", "tests", "pyproject.toml", "scripts", "examples", "bench", "docs")
TESTS = {
    "src/headrace/delivery": ("tests/unit/delivery", "tests/unit/admin", "tests/unit/bus"),
    "src/headrace/storage/kv": ("tests/unit/storage", "tests/contract/test_storage.py"),
    "src/headrace/runtime": ("tests/unit/runtime", "tests/contract/test_runtimes.py"),
}
APPS = (
    "tests/simulation",
    *(
        f"--ignore=tests/simulation/test_{each}.py"
        for each in ("smoke", "planted_defects", "planted_in_scenes")
    ),
)
"""Whole apps on virtual time, but for those tests that play seeds themselves."""
SIMULATED = ROOMS[0]
"""The room that the simulation runs for real; of the others it has twins in memory."""
SHOWN = 2_000
"""How much of what a failing test says is told, in characters."""
SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
}


class Mutant(NamedTuple):
    """One change: in which file, at which line, from what to what; and where in the file's tree."""

    file: Path
    line: int
    before: str
    after: str
    number: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}  {self.before}  ->  {self.after}"

    def applied(self, whole: str) -> str:
        """The file's text with the change made."""
        tree = ast.parse(whole)
        site = next(each for place, each in enumerate(ast.walk(tree)) if place == self.number)
        before, after = next(_changed(site))
        _replace(tree, before, after)
        return ast.unparse(ast.fix_missing_locations(tree))


def mutants_of(file: Path) -> list[Mutant]:
    """Every change that is tried in a file (a path below the root)."""
    tree = ast.parse((ROOT / file).read_text())
    # What says how a class is made, and of which types things are, is not behaviour.
    skipped = {
        id(part)
        for node in ast.walk(tree)
        for named in _types_of(node)
        if named is not None
        for part in ast.walk(named)
    }
    return [
        Mutant(file, getattr(node, "lineno", 0), _short(before), _short(after), number)
        for number, node in enumerate(ast.walk(tree))
        if id(node) not in skipped
        for before, after in _changed(node)
    ]


def _types_of(node: ast.AST) -> tuple[ast.AST | None, ...]:
    match node:
        case ast.AnnAssign(annotation=annotation) | ast.arg(annotation=annotation):
            return (annotation,)
        case ast.FunctionDef(returns=returns) | ast.AsyncFunctionDef(returns=returns):
            return (returns,)
        case ast.ClassDef(keywords=keywords, decorator_list=decorators):
            return (*keywords, *decorators)
        case _:
            return ()


def _changed(node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    """The node, and what stands in its place."""
    match node:
        case ast.Compare(ops=[op], left=left, comparators=more) if type(op) in SWAPS:
            swapped = SWAPS[type(op)]()
            assert isinstance(swapped, ast.cmpop)  # noqa: S101 - comparisons swap among themselves
            yield node, ast.copy_location(ast.Compare(left, [swapped], more), node)
        case ast.BoolOp(op=op, values=values):
            swapped = SWAPS[type(op)]()
            assert isinstance(swapped, ast.boolop)  # noqa: S101 - likewise
            yield node, ast.copy_location(ast.BoolOp(swapped, values), node)
        case ast.BinOp(op=op, left=left, right=right) if type(op) in SWAPS:
            swapped = SWAPS[type(op)]()
            assert isinstance(swapped, ast.operator)  # noqa: S101 - likewise
            yield node, ast.copy_location(ast.BinOp(left, swapped, right), node)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield node, operand
        case ast.Constant(value=bool(value)):
            yield node, ast.copy_location(ast.Constant(not value), node)
        case ast.Constant(value=int(value)) if value < 1_000:
            yield node, ast.copy_location(ast.Constant(value + 1), node)
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test) if not isinstance(
            test, ast.Compare | ast.BoolOp | ast.UnaryOp
        ):
            yield test, ast.copy_location(ast.UnaryOp(ast.Not(), test), test)
        case ast.Expr(value=ast.Call() | ast.Await()):
            yield node, ast.copy_location(ast.Pass(), node)
        case (
            ast.Assign(targets=[ast.Attribute() | ast.Subscript()]) | ast.AugAssign() | ast.Delete()
        ):
            yield node, ast.copy_location(ast.Pass(), node)
        case _:
            pass


def _replace(tree: ast.AST, old: ast.AST, new: ast.AST) -> None:
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if value is old:
                setattr(parent, name, new)
                return
            if isinstance(value, list) and any(each is old for each in value):
                value[:] = [new if each is old else each for each in value]
                return


def _short(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 90 else f"{text[:87]}..."


class Trial:
    """A copy of the checkout, in which one mutant at a time is tried."""

    def __init__(self, folder: Path, seeds: int, patience: float) -> None:
        self._folder = folder
        self._seeds = seeds
        self._patience = patience
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                skipped = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source, folder / name, ignore=skipped)
            elif source.exists():
                shutil.copy(source, folder / name)
        paths = f"{folder / 'src'}{os.pathsep}{folder}"
        self._world = {
            **os.environ,  # noqa: TID251 - the tests' own, with the copy ahead of the checkout
            "PYTHONPATH": paths,
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def noticed_by(self, mutant: Mutant) -> str:
        """What noticed the mutant; "" where nothing did."""
        file = self._folder / mutant.file
        whole = file.read_text()
        file.write_text(mutant.applied(whole))
        try:
            for name, command in self._attempts(mutant.file):
                if self._failure(command):
                    return name
            return ""
        finally:
            file.write_text(whole)

    def fails(self, room: str) -> str:
        """What fails of a room that nobody changed, and how; "" where nothing does."""
        for name, command in self._attempts(Path(room) / "none.py"):
            if failure := self._failure(command):
                return f"{failure}\n{name}"
        return ""

    def _attempts(self, file: Path) -> Iterator[tuple[str, list[str]]]:
        room = next(each for each in ROOMS if file.is_relative_to(each))
        tests = [each for each in TESTS[room] if (self._folder / each).exists()]
        if near := self._naming(file, tests):
            yield "tests that name it", [*PYTEST, *near]
        yield "its room's tests", [*PYTEST, *tests]
        if room == SIMULATED:
            yield "simulated apps", [*PYTEST, *APPS]
        if room == SIMULATED and self._seeds:
            count = ["--seeds", str(self._seeds)]
            yield "simulated seeds", ["-m", "headrace.simulation", *count]

    def _naming(self, file: Path, tests: Sequence[str]) -> list[str]:
        """The test files that import the mutant's module."""
        module = ".".join(file.with_suffix("").parts[1:])
        package, _, name = module.rpartition(".")
        marks = (f"from {module} import", f"import {module}", f"from {package} import {name}")
        files = (
            each
            for path in map(self._folder.joinpath, tests)
            for each in ([path] if path.is_file() else sorted(path.rglob("test_*.py")))
        )
        return [
            str(each.relative_to(self._folder))
            for each in files
            if any(mark in each.read_text() for mark in marks)
        ]

    def _failure(self, command: Sequence[str]) -> str:
        """How a command fails, by the end of what it says; "" where it succeeds."""
        try:
            done = subprocess.run(
                [sys.executable, *command],
                cwd=self._folder,
                env=self._world,
                check=False,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=self._patience,
            )
        except subprocess.TimeoutExpired:
            return f"took longer than {self._patience:.0f} s"
        if not done.returncode:
            return ""
        return done.stdout.decode(errors="replace")[-SHOWN:] or f"status {done.returncode}"


PYTEST = ("-m", "pytest", "-x", "-q")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 1 where what is not changed fails already."""
    parser = argparse.ArgumentParser(prog="python scripts/mutants.py")
    parser.add_argument("--minutes", type=float, default=10.0, help="begin no mutant after these")
    parser.add_argument("--count", type=int, default=10_000, help="how many mutants at most")
    parser.add_argument("--seed", type=int, default=0, help="draws which mutants")
    parser.add_argument(
        "--seeds", type=int, default=60, help="simulated seeds a mutant must survive"
    )
    parser.add_argument(
        "--patience", type=float, default=180.0, help="seconds that a step of a trial may take"
    )
    parser.add_argument("--only", action="append", default=[], help="a file or folder; repeatable")
    asked = parser.parse_args(arguments)
    ends = time.monotonic() + asked.minutes * 60  # noqa: TID251 - how long a person waits
    chosen = [Path(each) for each in asked.only or ROOMS]
    files = [
        each.relative_to(ROOT)
        for path in chosen
        for each in ([ROOT / path] if path.suffix else sorted((ROOT / path).rglob("*.py")))
    ]
    chance = Random(asked.seed)
    survivors: list[Mutant] = []
    tried = 0
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        trial = Trial(Path(folder), asked.seeds, asked.patience)
        drawn = [mutant for file in files for mutant in mutants_of(file)]
        chance.shuffle(drawn)
        for room in ROOMS:
            if any(file.is_relative_to(room) for file in files) and (why := trial.fails(room)):
                sys.stderr.write(f"{why} fail without any mutant in {room}; mend that first\n")
                return 1
        for mutant in drawn[: asked.count]:
            if time.monotonic() > ends:  # noqa: TID251 - likewise
                break
            noticed = trial.noticed_by(mutant)
            tried += 1
            if not noticed:
                survivors.append(mutant)
            sys.stdout.write(f"{noticed or 'SURVIVED':20}  {mutant}\n")
            sys.stdout.flush()
    sys.stdout.write(f"\n{tried} of {len(drawn)} mutants tried, {len(survivors)} survived\n")
    sys.stdout.write("".join(f"  {mutant}\n" for mutant in survivors))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
