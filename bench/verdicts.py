"""Judges figures: medians, ratios round by round, and whether each target is met. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from bench.metrics import Metric, Reading, Target
from bench.turns import Measured


@dataclass(frozen=True)
class Spread:
    """A figure over the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Spread:
        """The spread of at least one sample."""
        return cls(statistics.median(samples), min(samples), max(samples))


@dataclass(frozen=True)
class Judged:
    """A target, what our figure was held against, and the result.

    `met` is None where something could not be measured. `ratio` is ours over the best of what it
    is held against (or ours itself where the bound is absolute); `low` and `high` are the same over
    the single rounds.
    """

    target: Target
    best: Reading | None
    best_value: float | None
    ratio: float | None
    low: float | None
    high: float | None
    met: bool | None


@dataclass(frozen=True)
class Line:
    """A metric with its figures."""

    metric: Metric
    ours: Spread | None
    judged: tuple[Judged, ...]
    marks: tuple[tuple[Reading, Spread], ...]

    @property
    def met(self) -> bool | None:
        """Whether every target is met; None where one could not be judged and none is missed."""
        verdicts = [judged.met for judged in self.judged]
        if False in verdicts:
            return False
        return None if None in verdicts or not verdicts else True


def judge_target(target: Target, ours: Sequence[float], measured: Measured) -> Judged:
    """Hold our samples against one target."""
    if not ours:
        return Judged(target, None, None, None, None, None, None)
    value = statistics.median(ours)
    less = target.bound == "<="
    if not target.against:
        met = value <= target.factor if less else value >= target.factor
        return Judged(target, None, None, value, min(ours), max(ours), met)
    known = {r: measured.figures[r] for r in target.against if measured.figures.get(r)}
    if not known:
        return Judged(target, None, None, None, None, None, None)
    pick = min if less else max
    best = pick(known, key=lambda reading: statistics.median(known[reading]))
    against = statistics.median(known[best])
    bound = target.factor * against + target.plus
    met = value <= bound if less else value >= bound
    rounds = [mine / other for mine, other in zip(ours, known[best], strict=False) if other]
    return Judged(
        target,
        best,
        against,
        value / against,
        min(rounds, default=None),
        max(rounds, default=None),
        met,
    )


def judge(metrics: Sequence[Metric], measured: Measured) -> list[Line]:
    """Hold every metric against its targets."""
    lines = []
    for metric in metrics:
        ours = measured.figures.get(metric.ours, [])
        lines.append(
            Line(
                metric,
                Spread.of(ours) if ours else None,
                tuple(judge_target(target, ours, measured) for target in metric.targets),
                tuple(
                    (mark, Spread.of(measured.figures[mark]))
                    for mark in metric.marks
                    if measured.figures.get(mark)
                ),
            )
        )
    return lines
