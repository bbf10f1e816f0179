"""Puts a result file's figures into `docs/performance.md`, between its two marks, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.report import VERDICTS, number

BEGIN = "<!-- figures: begin (written by `python -m bench page`) -->"
END = "<!-- figures: end -->"


class PageHasNoPlace(Exception):
    """The two marks are not on the page, once each and in order."""


def table(document: dict[str, Any]) -> Iterator[str]:
    """The figures as a Markdown table, after a sentence on where they come from."""
    machine = document["machine"]
    yield (
        f"Measured on {document['date'][:10]} at commit `{document['commit']}`: {machine['cpu']}, "
        f"{machine['cores']:.0f} cores, {machine['memory_gib']:g} GiB, Linux {machine['kernel']}, "
        f"CPython {machine['python']}; medians of {document['rounds']} rounds in turns, with the "
        "range of the rounds; a ratio's range is that of the single rounds."
    )
    yield ""
    yield "| # | metric | ours | range | held against | it has | ratio | target | verdict |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for metric in document["metrics"]:
        yield from metric_rows(metric)
    if document["failures"]:
        yield ""
        yield "Programs that failed: " + "; ".join(
            f"`{program}` ({why})" for program, why in document["failures"].items()
        )
    if document.get("skipped"):
        yield ""
        yield "Programs that could not run on this machine: " + "; ".join(
            f"`{program}` ({why})" for program, why in document["skipped"].items()
        )


def metric_rows(metric: dict[str, Any]) -> Iterator[str]:
    """One row for each target; the first names the metric."""
    ours = metric["ours"]
    value = f"{number(ours['median'])} {metric['unit']}" if ours else "-"
    spread = f"{number(ours['low'])} to {number(ours['high'])}" if ours else ""
    head = (metric["number"], metric["name"], value, spread)
    for target in metric["targets"]:
        yield row(*head, *judged_cells(target))
        head = ("", "", "", "")
    if not metric["targets"]:
        yield row(*head, "", "", "", "", "no target")
    for mark, seen in metric["marks"].items():
        yield row("", "", "", "", f"`{mark}`", number(seen["median"]), "", "", "beside it")


def judged_cells(target: dict[str, Any]) -> tuple[str, ...]:
    """What it was held against, the ratio, the target and the verdict."""
    held = f"`{target['against'].partition(':')[0]}`" if target["against"] else ""
    ratio = ""
    if target["against"] and target["ratio"] is not None:
        ratio = f"{number(target['ratio'])}x"
        if target["ratio_low"] is not None:
            ratio += f" ({number(target['ratio_low'])} to {number(target['ratio_high'])})"
    value = number(target["value"]) if target["value"] is not None else ""
    return held, value, ratio, target["words"], VERDICTS[target["met"]]


def row(*cells: str) -> str:
    """A table row."""
    return "| " + " | ".join(cells) + " |"


def rewrite(page: Path, document: dict[str, Any]) -> None:
    """Replace what stands between the marks.

    Raises:
        PageHasNoPlace: There is nothing to replace.
    """
    text = page.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise PageHasNoPlace(f"`{page}` lacks the lines `{BEGIN}` and `{END}`; put them back")
    page.write_text(f"{before}{BEGIN}\n\n" + "\n".join(table(document)) + f"\n\n{END}{after}")
