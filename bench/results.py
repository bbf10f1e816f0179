"""Result files: every figure of every round with its machine and commit; and comparing two of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.machine import IDENTITY
from bench.report import target_text
from bench.turns import Measured
from bench.verdicts import Line, Spread


class NotComparable(Exception):
    """The two results come from different machines, or one was a quick run."""


def as_document(
    lines: Sequence[Line],
    measured: Measured,
    *,
    machine: dict[str, str | float],
    commit: str,
    date: str,
    rounds: int,
    quick: bool,
    load: float,
) -> dict[str, Any]:
    """The result file's content."""
    programs: dict[str, dict[str, list[float]]] = {}
    for reading, samples in measured.figures.items():
        programs.setdefault(reading.program.name, {})[reading.figure] = samples
    return {
        "date": date,
        "commit": commit,
        "machine": machine,
        "load_at_start": load,
        "rounds": rounds,
        "quick": quick,
        "metrics": [_metric(line) for line in lines],
        "programs": programs,
        "failures": {program.name: why for program, why in measured.failures.items()},
        "skipped": {program.name: why for program, why in measured.skipped.items()},
    }


def _spread(spread: Spread | None) -> dict[str, float] | None:
    if spread is None:
        return None
    return {"median": spread.median, "low": spread.low, "high": spread.high}


def _metric(line: Line) -> dict[str, Any]:
    return {
        "number": line.metric.number,
        "name": line.metric.name,
        "unit": line.metric.unit,
        "ours": _spread(line.ours),
        "met": line.met,
        "targets": [
            {
                "words": target_text(judged.target, line.metric.unit),
                "bound": judged.target.bound,
                "factor": judged.target.factor,
                "plus": judged.target.plus,
                "against": str(judged.best) if judged.best else None,
                "value": judged.best_value,
                "ratio": judged.ratio,
                "ratio_low": judged.low,
                "ratio_high": judged.high,
                "met": judged.met,
            }
            for judged in line.judged
        ],
        "marks": {str(mark): _spread(spread) for mark, spread in line.marks},
    }


def write(folder: Path, document: dict[str, Any]) -> Path:
    """Write `<date>-<commit>.json`; a second run of a day and commit gets a number."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{document['date'][:10]}-{document['commit'].replace('+', '-changed')}"
    path = folder / f"{stem}.json"
    number = 2
    while path.exists():
        path = folder / f"{stem}-{number}.json"
        number += 1
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path


def compare(before: dict[str, Any], after: dict[str, Any]) -> list[tuple[str, ...]]:
    """Rows of (number, name, before, after, change, remark), for metrics both have.

    A change is remarkable only where the two spreads do not touch.

    Raises:
        NotComparable: The machines differ, or a run was only a quick one.
    """
    differing = [
        f"{name} `{before['machine'].get(name)}` and `{after['machine'].get(name)}`"
        for name in IDENTITY
        if before["machine"].get(name) != after["machine"].get(name)
    ]
    if differing:
        raise NotComparable(
            "the results come from different machines: "
            + "; ".join(differing)
            + "; run both commits on one machine"
        )
    if before["quick"] or after["quick"]:
        raise NotComparable("a `--quick` run only shows that the programs run; run both without it")
    rows: list[tuple[str, ...]] = [("#", "metric", "before", "after", "change", "")]
    old = {metric["number"]: metric for metric in before["metrics"] if metric["ours"]}
    for new in after["metrics"]:
        was = old.get(new["number"], {}).get("ours")
        now = new["ours"]
        if not was or not now:
            continue
        apart = now["low"] > was["high"] or now["high"] < was["low"]
        change = now["median"] / was["median"] - 1 if was["median"] else 0.0
        less_is_better = all(target["bound"] == "<=" for target in new["targets"])
        remark = ""
        if apart:
            remark = "better" if (change < 0) == less_is_better else "WORSE"
        rows.append(
            (
                new["number"],
                f"{new['name']} ({new['unit']})",
                f"{was['median']:,.4g}",
                f"{now['median']:,.4g}",
                f"{change:+.1%}",
                remark,
            )
        )
    return rows
