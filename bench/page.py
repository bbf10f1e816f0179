"""Puts the figures of result files into `docs/performance.md`, between its two marks, nowhere else."""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.report import VERDICTS, number

BEGIN = "<!-- figures: begin (written by `python -m bench page`) -->"
END = "<!-- figures: end -->"


class PageHasNoPlace(Exception):
    """The two marks are not on the page, once each and in order."""


def table(documents: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The figures as a Markdown table, after a sentence for each file on where they come from.

    Where several files have a metric, the last of them counts.
    """
    latest = {
        metric["number"]: (metric, place)
        for place, document in enumerate(documents)
        for metric in document["metrics"]
    }
    order = sorted(latest, key=_in_order)
    for place, document in enumerate(documents):
        if rows := [each for each in order if latest[each][1] == place]:
            yield origin(document, rows if len(documents) > 1 else [])
            yield ""
    yield "| # | metric | ours | range | held against | it has | ratio | target | verdict |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for each in order:
        yield from metric_rows(latest[each][0])
    for word, words in (
        ("failures", "Programs that failed: "),
        ("skipped", "Programs that could not run on this machine: "),
    ):
        told = {name: why for one in documents for name, why in one.get(word, {}).items()}
        if told:
            yield ""
            yield words + "; ".join(f"`{program}` ({why})" for program, why in told.items())


def origin(document: dict[str, Any], rows: Sequence[str]) -> str:
    """Where and when the figures of these rows (none named: all) were measured."""
    machine = document["machine"]
    return (
        (f"{', '.join(rows)}: measured" if rows else "Measured")
        + f" on {document['date'][:10]} at commit `{document['commit']}`: {machine['cpu']}, "
        f"{machine['cores']:.0f} cores, {machine['memory_gib']:g} GiB, Linux {machine['kernel']}, "
        f"CPython {machine['python']}; medians of {document['rounds']} rounds in turns, with the "
        "range of the rounds; a ratio's range is that of the single rounds."
    )


def _in_order(number: str) -> tuple[int, str]:
    digits = number.rstrip(string.ascii_letters)
    return int(digits), number[len(digits) :]


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
        yield row("", "", "", "", f"`{mark}`", number(seen["median"]), "", "", "for comparison")


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


def rewrite(page: Path, *documents: dict[str, Any]) -> None:
    """Replace what stands between the marks.

    Raises:
        PageHasNoPlace: There is nothing to replace.
    """
    text = page.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise PageHasNoPlace(f"`{page}` lacks the lines `{BEGIN}` and `{END}`; put them back")
    page.write_text(f"{before}{BEGIN}\n\n" + "\n".join(table(documents)) + f"\n\n{END}{after}")
