"""What is measured and what it is held against, as values: programs, readings, targets, metrics."""

from __future__ import annotations

import string
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

Bound = Literal["<=", ">="]


@dataclass(frozen=True)
class Program:
    """One process of the suite, named by its module in `bench` and its arguments."""

    module: str
    arguments: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """As shown in tables and result files."""
        return " ".join((self.module, *self.arguments))

    @property
    def is_peer(self) -> bool:
        """Whether it runs in the peers' environment."""
        return self.module.startswith("peers.")


def program(line: str) -> Program:
    """The program of a line such as `limits.road --batch 128`."""
    module, *arguments = line.split()
    return Program(module, tuple(arguments))


@dataclass(frozen=True)
class Reading:
    """A figure that a program reports."""

    program: Program
    figure: str

    def __str__(self) -> str:
        return f"{self.program.name}: {self.figure}"


def read(line: str, figure: str) -> Reading:
    """The reading of `figure` from the program of `line`."""
    return Reading(program(line), figure)


@dataclass(frozen=True)
class Target:
    """Our figure must be at most (or at least) `factor` times the best of `against`, plus `plus`.

    With nothing in `against`, `factor` is the bound itself. The best is the smallest where less is
    better and the largest where more is, so a target against peers means every one of them.
    """

    bound: Bound
    factor: float
    against: tuple[Reading, ...] = ()
    plus: float = 0.0
    label: str = "limit"


@dataclass(frozen=True)
class Metric:
    """A line of the table.

    Attributes:
        row: The number of the target it belongs to.
        name: What is measured.
        unit: Of our figure and of all it is held against.
        ours: Where our figure comes from.
        targets: All must hold.
        marks: Shown beside it, not judged.
        letter: Tells the figures of one row apart; given by `lettered`.
    """

    row: int
    name: str
    unit: str
    ours: Reading
    targets: tuple[Target, ...]
    marks: tuple[Reading, ...] = ()
    letter: str = ""

    @property
    def number(self) -> str:
        """Such as `6a`; `10` where the row has only one figure."""
        return f"{self.row}{self.letter}"

    def readings(self) -> list[Reading]:
        """Ours first, then all it needs, each once."""
        needed = [self.ours, *(r for t in self.targets for r in t.against), *self.marks]
        return list(dict.fromkeys(needed))


def lettered(metrics: Iterable[Metric]) -> tuple[Metric, ...]:
    """The metrics in their order, with a letter each where a row has several."""
    rows: dict[int, list[Metric]] = {}
    for metric in metrics:
        rows.setdefault(metric.row, []).append(metric)
    return tuple(
        replace(metric, letter=letter if len(row) > 1 else "")
        for row in rows.values()
        for metric, letter in zip(row, string.ascii_lowercase, strict=False)
    )


def at_most(factor: float, *against: Reading, plus: float = 0.0, label: str = "limit") -> Target:
    """Less is better."""
    return Target("<=", factor, against, plus, label)


def at_least(factor: float, *against: Reading, label: str = "limit") -> Target:
    """More is better."""
    return Target(">=", factor, against, label=label)
