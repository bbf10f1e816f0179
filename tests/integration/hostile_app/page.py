"""The tables of the page about isolation: written from the answers of a run, and read again."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tests.integration.hostile_app.asking import LEVELS, Answers
from tests.integration.hostile_app.questions import REACHED

PAGE: Final = Path(__file__).parents[3] / "docs" / "concepts" / "isolation.md"
BEGIN: Final = "<!-- written by scripts/isolation_page.py -->"
END: Final = "<!-- end -->"
USERS: Final = ("root", "other")
GROUPS: Final = {
    "door": "The node's HTTP server",
    "host": "The channel to the host",
    "files": "Files",
    "processes": "Other processes",
    "network": "The network",
    "kernel": "The kernel",
    "share": "More than its share",
    "at import": "While the app is imported",
}
Cells = dict[tuple[str, str], dict[tuple[str, int], str]]
"""By group and question, the answer by user and level."""


def cells_of(found: dict[str, Answers]) -> Cells:
    """The answers of all users side by side."""
    cells: Cells = {}
    for user, answers in found.items():
        for where, by_level in answers.items():
            row = cells.setdefault(where, {})
            row.update({(user, level): answer for level, answer in by_level.items()})
    return cells


def written(cells: Cells) -> str:
    """The tables."""
    return "\n\n".join(
        f"### {title}\n\n{_table((name, row) for (of, name), row in cells.items() if of == group)}"
        for group, title in GROUPS.items()
    )


def _table(rows: Iterable[tuple[str, dict[tuple[str, int], str]]]) -> str:
    lines = [
        "| a function tries to | root 0 | root 1 | root 2 | other 0 | other 1 | other 2 |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in rows:
        told = [row[user, level] for user in USERS for level in LEVELS]
        cells = (f"**{each}**" if each == REACHED else each for each in told)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def read(page: str) -> Cells:
    """What the tables of a page say."""
    groups = {title: group for group, title in GROUPS.items()}
    cells: Cells = {}
    group = ""
    for line in page.partition(BEGIN)[2].partition(END)[0].splitlines():
        if line.startswith("### "):
            group = groups[line.removeprefix("### ")]
        elif line.startswith("| ") and "| root 0 |" not in line:
            name, *told = (each.strip().strip("*") for each in line.strip("| ").split(" | "))
            places = [(user, level) for user in USERS for level in LEVELS]
            cells[group, name] = dict(zip(places, told, strict=True))
    return cells


def put(page: str, cells: Cells) -> str:
    """The page with other tables."""
    before, _, rest = page.partition(BEGIN)
    _, _, behind = rest.partition(END)
    return f"{before}{BEGIN}\n\n{written(cells)}\n\n{END}{behind}"
