"""The function-trigger map as a drawing in the languages of other tools: Mermaid and Graphviz. Pure: rows -> text."""

from __future__ import annotations

import json
from collections.abc import Sequence

from headrace.topology.graph import HOW_SHOWN, How
from headrace.topology.map import MapRow

WATCHERS = ("silence", "missing")
"""Triggers on what a stream lacks; nothing flows along their lines."""


def mermaid(rows: Sequence[MapRow]) -> str:
    """A Mermaid flowchart, from left to right; GitHub and GitLab draw it in a page."""
    names = _names(rows)
    lines = ["flowchart LR"]
    for name, number in names.items():
        kind = _trigger(rows, name)
        if kind is None:
            lines.append(f'  {number}(["{_escaped(name)}"])')
        else:
            beneath = f"<br/>{_escaped(kind)}" if kind else ""
            lines.append(f'  {number}["{_escaped(name)}{beneath}"]')
    for source, target, watches, how in _edges(rows):
        # Dotted: no event flows along it.
        arrow = "-.->" if watches else "-->"
        note = f"|{HOW_SHOWN[how]}|" if HOW_SHOWN[how] else ""
        lines.append(f"  {names[source]} {arrow}{note} {names[target]}")
    return "\n".join(lines)


def graphviz(rows: Sequence[MapRow]) -> str:
    """A Graphviz digraph, for `dot -Tsvg`."""
    lines = ["digraph headrace {", "  rankdir=LR;"]
    for name in _names(rows):
        kind = _trigger(rows, name)
        if kind is None:
            lines.append(f"  {json.dumps(name)} [shape=oval];")
        else:
            label = json.dumps(f"{name}\n{kind}" if kind else name)
            lines.append(f"  {json.dumps(name)} [shape=box, label={label}];")
    for source, target, watches, how in _edges(rows):
        note = f" [label={json.dumps(HOW_SHOWN[how])}]" if HOW_SHOWN[how] else ""
        style = " [style=dotted]" if watches else note
        lines.append(f"  {json.dumps(source)} -> {json.dumps(target)}{style};")
    return "\n".join([*lines, "}"])


def _names(rows: Sequence[MapRow]) -> dict[str, str]:
    """Every function and stream with an id that any tool takes."""
    found: dict[str, str] = {}
    for row in rows:
        for name in (*row.streams, row.function, *row.outputs):
            # Ids by number: names have dots and dashes, which Mermaid reads as syntax.
            found.setdefault(name, f"n{len(found)}")
    return found


def _trigger(rows: Sequence[MapRow], name: str) -> str | None:
    """Describe a trigger other than a stream; None for a stream."""
    own = [row for row in rows if row.function == name]
    if not own:
        return None
    return ", ".join(row.trigger for row in own if not row.trigger.startswith(("stream", "merge")))


def _edges(rows: Sequence[MapRow]) -> list[tuple[str, str, bool, How]]:
    """Each line once: from, to, whether it only watches, and how it is known."""
    found: dict[tuple[str, str], bool] = {}
    known: dict[tuple[str, str], How] = {}
    for row in rows:
        watches = row.trigger.startswith(WATCHERS)
        for stream in row.streams:
            # A function that both watches and reads a stream has one line, a solid one.
            found[stream, row.function] = watches and found.get((stream, row.function), True)
        for stream in row.outputs:
            found[row.function, stream] = False
            known[row.function, stream] = row.known_by.get(stream, "declared")
    return [
        (source, target, watches, known.get((source, target), "declared"))
        for (source, target), watches in found.items()
    ]


def _escaped(text: str) -> str:
    """Text in which nothing is Mermaid's own."""
    # `#` first, or it would escape what the others become.
    for sign, name in (("#", "#35;"), ('"', "#quot;"), ("<", "#lt;"), (">", "#gt;")):
        text = text.replace(sign, name)
    return text
