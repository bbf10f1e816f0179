"""The table people read: ours, what it is held against, the ratio, the target and the verdict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.metrics import Target
from bench.turns import Measured
from bench.verdicts import Judged, Line

VERDICTS = {True: "met", False: "MISSED", None: "not measured"}


def number(value: float | None) -> str:
    """Three figures are all that repeated runs agree on."""
    if value is None:
        return "-"
    if abs(value) >= 1_000:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}"


def target_text(target: Target, unit: str) -> str:
    """Such as `<= 1.4x limit + 30 ms`."""
    if not target.against:
        return f"{target.bound} {number(target.factor)} {unit}"
    factor = f"1/{1 / target.factor:.3g}" if target.factor < 0.1 else f"{target.factor:.3g}x"
    plus = f" + {number(target.plus)} {unit}" if target.plus else ""
    return f"{target.bound} {factor} {target.label}{plus}"


def ratio_text(judged: Judged) -> str:
    """The ratio with its range over the rounds."""
    if judged.ratio is None or not judged.target.against:
        return ""
    text = f"{number(judged.ratio)}x"
    if judged.low is not None and judged.high is not None and judged.low != judged.high:
        text += f" ({number(judged.low)}-{number(judged.high)})"
    return text


def rows(lines: Sequence[Line]) -> Iterator[tuple[str, ...]]:
    """The table's rows, head first."""
    yield ("#", "metric", "ours", "range", "against", "it has", "ratio", "target", "verdict")
    for line in lines:
        unit = line.metric.unit
        ours = f"{number(line.ours.median)} {unit}" if line.ours else "-"
        spread = f"{number(line.ours.low)}-{number(line.ours.high)}" if line.ours else ""
        head: tuple[str, ...] = (line.metric.number, line.metric.name, ours, spread)
        for judged in line.judged:
            yield (
                *head,
                judged.best.program.name if judged.best else "",
                number(judged.best_value) if judged.best else "",
                ratio_text(judged),
                target_text(judged.target, unit),
                VERDICTS[judged.met],
            )
            head = ("", "", "", "")
        if not line.judged:
            yield (*head, "", "", "", "", "no target")
        for mark, seen in line.marks:
            yield ("", "", "", "", str(mark), number(seen.median), "", "", "for comparison")


def aligned(table: Sequence[tuple[str, ...]]) -> str:
    """Plain text in columns."""
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    )


def render(lines: Sequence[Line], measured: Measured, *, quick: bool) -> str:
    """The whole report."""
    parts = [aligned(list(rows(lines)))]
    if quick:
        parts.append("\na quick run: it shows that the programs run, not how fast anything is")
    if measured.failures:
        parts.append("\nprograms that failed:")
        parts += [f"  {program.name}: {why}" for program, why in measured.failures.items()]
    if measured.skipped:
        parts.append("\nprograms that cannot run here:")
        parts += [f"  {program.name}: {why}" for program, why in measured.skipped.items()]
    judged = [line for line in lines if line.judged]
    counts = {verdict: sum(line.met is verdict for line in judged) for verdict in VERDICTS}
    parts.append("\n" + ", ".join(f"{count} {VERDICTS[key]}" for key, count in counts.items()))
    return "\n".join(parts)
