"""The overview page: what runs here, how far it is, and what waits for a person. Values -> HTML.

It shows and changes nothing; every text is escaped, there is no script, and the page asks again by
itself. Where a person must act, it says with which command.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from headrace.delivery.lag import LagRow
from headrace.delivery.parking import ParkedKey
from headrace.delivery.runs import Counters, LogLine, Run
from headrace.delivery.sources import SourceRow
from headrace.faces.console.drawing import picture
from headrace.model.effects import DeadEvent
from headrace.model.function import AppSpec
from headrace.topology.graph import Edge, Graph, graph_of
from headrace.topology.map import map_rows

REFRESH_S = 2
STYLE = """
:root{color-scheme:light dark;--ink:#1c2733;--soft:#5b6b7b;--line:#d5dde5;--paper:#fff;--wash:#f5f7f9;
--stream:#e3f0fb;--edge:#8aa0b4;--function:#fdf1dc;--bad:#b3261e;--good:#1d7a46}
@media(prefers-color-scheme:dark){:root{--ink:#e4eaf0;--soft:#9aa9b8;--line:#33414f;--paper:#151c23;
--wash:#1c252e;--stream:#1d3a55;--edge:#6d8298;--function:#4a3a1c;--bad:#ff8a80;--good:#7bd8a3}}
*{box-sizing:border-box}body{margin:0;font:14px/1.45 system-ui,sans-serif;color:var(--ink);
background:var(--paper)}header{padding:14px 22px;border-bottom:1px solid var(--line);background:var(--wash)}
h1{font-size:18px;margin:0}header p{margin:2px 0 0;color:var(--soft)}main{padding:6px 22px 40px}
h2{font-size:14px;margin:24px 0 6px}section{overflow-x:auto}table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:4px 14px 4px 0;border-bottom:1px solid var(--line);white-space:nowrap;
vertical-align:top}th{color:var(--soft);font-weight:500;font-size:12px}td.n{text-align:right;
font-variant-numeric:tabular-nums}td.wide{white-space:normal;min-width:16em}code{font-family:ui-monospace,
monospace;font-size:12.5px}.bad{color:var(--bad)}.good{color:var(--good)}.soft{color:var(--soft)}
svg text{font:600 12px system-ui,sans-serif;text-anchor:middle;fill:var(--ink)}svg .note{font-weight:400;
font-size:10.5px;fill:var(--soft)}svg rect{stroke:var(--edge)}.stream rect{fill:var(--stream)}
.function rect{fill:var(--function)}svg path{fill:none;stroke:var(--edge);stroke-width:1.4}
svg .back{stroke-dasharray:5 4}svg .watch{stroke-dasharray:1 4}svg .tip{fill:var(--edge);stroke:none}
"""
POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    + "'"
)
"""The page's Content-Security-Policy: its own style sheet and nothing else."""


@dataclass(frozen=True, kw_only=True)
class Overview:
    """What the page shows, read at one moment."""

    version: str
    ready: bool
    reason: str
    apps: Sequence[AppSpec]
    lag: Sequence[LagRow]
    sources: Sequence[SourceRow]
    counters: dict[str, Counters]
    instances: Sequence[object]
    dead: Sequence[DeadEvent]
    parked: Sequence[ParkedKey]
    runs: Sequence[Run]
    logs: Sequence[LogLine]


def page(shown: Overview) -> str:
    """The page."""
    state = (
        '<span class="good">ready</span>'
        if shown.ready
        else f'<span class="bad">not ready: {escape(shown.reason)}</span>'
    )
    apps = ", ".join(f"<b>{escape(app.name)}</b>" for app in shown.apps) or "no app"
    parts = [
        _section("Topology", _topology(shown)),
        _section("Functions", _functions(shown)),
        _section("Partitions that are behind or not running", _behind(shown.lag)),
        _section("Triggers that fail", _failing(shown.sources)),
        _section("Parked keys", _parked(shown.parked)),
        _section("Dead letters", _dead(shown.dead)),
        _section("Instances", _instances(shown.instances)),
        _section("Latest failed runs", _failed(shown.runs)),
        _section("Log", _log(shown.logs)),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="refresh" content="{REFRESH_S}"><title>Headrace</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head><body><header><h1>Headrace</h1><p>{state} · {apps} · "
        f"version {escape(shown.version)}</p></header><main>{''.join(parts)}</main></body></html>"
    )


def _section(title: str, body: str) -> str:
    return f"<h2>{escape(title)}</h2><section>{body}</section>" if body else ""


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are HTML already; a head that starts with `#` holds numbers."""
    lines = [
        "<tr>"
        + "".join(
            f"<td{' class=n' if head.startswith('#') else ''}>{cell}</td>"
            for head, cell in zip(heads, row, strict=True)
        )
        + "</tr>"
        for row in rows
    ]
    if not lines:
        return ""
    top = "".join(f"<th>{escape(head.lstrip('#'))}</th>" for head in heads)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _topology(shown: Overview) -> str:
    notes: dict[str, str] = {}
    ends: dict[str, int] = {}
    for row in {(row.stream, row.partition): row for row in shown.lag}.values():
        ends[row.stream] = ends.get(row.stream, 0) + row.high
    notes.update({stream: f"{count:,} events" for stream, count in ends.items()})
    for name in {row.function for row in shown.lag}:
        behind = sum(row.lag for row in shown.lag if row.function == name)
        notes[name] = f"{behind:,} behind" if behind else "up to date"
    declared = graph_of(shown.apps)
    # What a function publishes need not be declared; what it was seen to publish is drawn too.
    seen = {
        Edge(name, stream, "publishes")
        for name in declared.functions
        for stream in shown.counters.get(name, Counters()).outputs
    }
    edges = tuple(sorted({*declared.edges, *seen}))
    return picture(Graph(declared.streams, declared.functions, edges, declared.forwards), notes)


def _functions(shown: Overview) -> str:
    rows = []
    for row in map_rows(shown.apps):
        counters = shown.counters.get(row.function, Counters())
        failed = sum(count for kind, count in counters.outcomes.items() if kind != "succeeded")
        mean = 1_000 * counters.seconds / max(sum(counters.outcomes.values()), 1)
        rows.append(
            (
                f"<b>{escape(row.function)}</b><br><span class=soft>{escape(row.summary)}</span>",
                f"{escape(row.trigger)}<br><span class=soft>{escape(', '.join(row.streams))}</span>",
                f"{escape(row.batch)}<br><span class=soft>{escape(row.order)}</span>",
                f"{escape(row.retry)}<br><span class=soft>{escape(row.on_failure)}</span>",
                escape(row.scaling),
                f"{counters.events:,}",
                f"{sum(counters.outcomes.values()):,}",
                f'<span class="{"bad" if failed else "soft"}">{failed:,}</span>',
                f"{mean:.2f}",
                f"<code>{escape(row.version)}</code><br><span class=soft>{escape(row.owner)}</span>",
            )
        )
    heads = (
        "function", "trigger", "batch, order", "retry, then", "scaling", "#events", "#runs",
        "#not whole", "#mean ms", "version, owner",
    )  # fmt: skip
    return _table(heads, rows)


def _behind(lag: Sequence[LagRow]) -> str:
    rows = [
        (
            escape(row.function),
            f"{escape(row.stream)}/{row.partition}",
            f"{row.position:,}",
            f"{row.high:,}",
            f"{row.lag:,}",
            f"{row.oldest_age:.1f}",
            f'<span class="{"soft" if row.state == "running" else "bad"}">{escape(row.state)}</span>',
        )
        for row in lag
        if row.lag or row.state != "running"
    ]
    return _table(
        ("function", "partition", "#position", "#end", "#lag", "#oldest s", "state"), rows[:50]
    )


def _failing(sources: Sequence[SourceRow]) -> str:
    rows = [
        (
            escape(row.function),
            escape(row.trigger),
            f'<span class="bad">{escape(row.state)}</span>',
            f"{row.failures:,}",
            f"<code>{escape(row.error[:300])}</code>",
        )
        for row in sources
        if row.state != "running"
    ]
    return _table(("function", "trigger", "state", "#times", "error"), rows[:50])


def _parked(parked: Sequence[ParkedKey]) -> str:
    rows = [
        (
            escape(one.function),
            f"{escape(one.stream)}/{one.partition}",
            f"<code>{escape(one.key) if one.key is not None else '(none)'}</code>",
            f"{one.events:,}",
            escape(one.status),
            escape(one.cause[:160]),
            f"<code>headrace parked redrive {escape(one.function)}</code>",
        )
        for one in parked[:50]
    ]
    return _table(("function", "partition", "key", "#events", "status", "cause", "let go on"), rows)


def _dead(dead: Sequence[DeadEvent]) -> str:
    rows = [
        (
            escape(letter.function),
            f"<code>{escape(str(letter.position))}</code>",
            f"{letter.attempts}",
            escape(f"{letter.cause.kind}: {letter.cause.message}"[:160]),
            f"<code>headrace dead show {escape(letter.function)} {escape(str(letter.position))}</code>",
        )
        for letter in dead
    ]
    return _table(("function", "event", "#attempts", "cause", "look closer"), rows)


def _instances(instances: Sequence[object]) -> str:
    rows = [
        (
            f"<code>{escape(str(getattr(view, 'id', '')))}</code>",
            escape(str(getattr(view, "function", ""))),
            f"{getattr(view, 'pid', 0)}",
            escape(str(getattr(view, "state", ""))),
            f"{getattr(view, 'invocations', 0):,}",
            f"{getattr(view, 'age', 0.0):.0f}",
            f"{getattr(view, 'memory', 0) / (1 << 20):.1f}",
        )
        for view in instances[:100]
    ]
    return _table(("instance", "function", "#pid", "state", "#runs", "#age s", "#MiB"), rows)


def _failed(runs: Sequence[Run]) -> str:
    rows = [
        (
            escape(run.function),
            f"<code>{escape(run.first)}</code>",
            f"{run.events}",
            f"{run.attempt}",
            f'<span class="bad">{escape(run.outcome)}</span>',
            f"{run.wall * 1_000:.1f}",
            escape(run.cause[:160]),
        )
        for run in runs
        if run.outcome != "succeeded"
    ]
    return _table(
        ("function", "first event", "#events", "#attempt", "outcome", "#ms", "cause"), rows[:20]
    )


def _log(lines: Sequence[LogLine]) -> str:
    rows = [
        (escape(line.function), escape(line.level), f"<code>{escape(line.text[:300])}</code>")
        for line in reversed(lines)
    ]
    return _table(("function", "level", "line"), rows)
