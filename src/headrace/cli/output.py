"""Output of commands: aligned tables for people, JSON for programs. No colour, no decoration."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import click

Cell = str | Callable[[Mapping[str, Any]], Any]
MAX_CELL = 80


def print_json(value: Any) -> None:
    """One JSON document."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_json_line(value: Any) -> None:
    """One JSON document on one line."""
    click.echo(json.dumps(value, ensure_ascii=False))


def print_table(
    rows: Iterable[Mapping[str, Any]], columns: Mapping[str, Cell], *, empty: str
) -> None:
    """A table with a line of headings; numbers to the right; `empty` where there is no row.

    Args:
        rows: What to show.
        columns: Heading -> a row's key, or what makes the cell of a row.
        empty: The sentence that is printed instead of an empty table.
    """
    found = list(rows)
    if not found:
        click.echo(empty)
        return
    for line in table_lines(found, columns):
        click.echo(line)


def table_lines(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, Cell]) -> list[str]:
    """The lines of a table."""
    cells = [
        [row.get(want) if isinstance(want, str) else want(row) for want in columns.values()]
        for row in rows
    ]
    right = [
        any(is_number(row[index]) for row in cells)
        and all(is_number(row[index]) or row[index] is None for row in cells)
        for index in range(len(columns))
    ]
    texts = [[text_of(cell) for cell in row] for row in cells]
    widths = [
        max(len(heading), *(len(row[index]) for row in texts))
        for index, heading in enumerate(columns)
    ]
    lines = []
    for row in [[heading.upper() for heading in columns], *texts]:
        parts = [
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(row, widths, right, strict=True)
        ]
        lines.append("  ".join(parts).rstrip())
    return lines


def is_number(cell: Any) -> bool:
    """Return whether a cell is a number (and not a yes or no)."""
    return isinstance(cell, int | float) and not isinstance(cell, bool)


def text_of(cell: Any) -> str:
    """A cell as text on one line: thousands apart, yes and no, nothing for None."""
    if cell is None or cell == "":
        return "-"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int):
        return f"{cell:,}"
    if isinstance(cell, float):
        return f"{cell:.3f}" if cell < 10 else f"{cell:,.1f}"
    if isinstance(cell, list | tuple):
        return ", ".join(text_of(part) for part in cell) or "-"
    return one_line(str(cell))


def one_line(text: str, most: int = MAX_CELL) -> str:
    """Text without line breaks or control characters, cut where it is longer than `most`."""
    flat = "".join(letter if letter.isprintable() else " " for letter in " ".join(text.split()))
    return flat if len(flat) <= most else flat[: most - 1] + "…"


def short_time(text: str) -> str:
    """An RFC 3339 time without its microseconds."""
    return text[:19] + "Z" if len(text) > 20 else text


def value_text(shown: Mapping[str, Any], most: int = 10_000) -> str:
    """A record's payload on one line."""
    if "value" in shown:
        return one_line(json.dumps(shown["value"], ensure_ascii=False), most)
    if "value_text" in shown:
        return one_line(str(shown["value_text"]), most)
    return f"base64:{shown.get('value_base64', '')}"[:most]


def plural(count: int, one: str, many: str = "") -> str:
    """`1 event`, `2 events`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
