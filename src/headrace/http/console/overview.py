"""The overview page: what runs here, how far it is, and what waits for a person. Values -> HTML.

It shows and changes nothing, and asks again by itself. Where a person must act, it says with which
command.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from markupsafe import Markup

from headrace.admin.lag import LagRow
from headrace.admin.sources import SourceRow
from headrace.delivery.parked import ParkedKey
from headrace.http.console.failures import dead_table, parked_table
from headrace.http.console.graph_svg import MAX_NODES, EdgeLabel, NodeCaption, picture, too_many
from headrace.http.console.html_parts import (
    NOTHING,
    code,
    listed,
    paragraph,
    rate,
    section,
    short,
    span,
    stacked,
    table,
    to,
    to_event,
    to_function,
    to_partition,
    to_stream,
    toned,
    when,
)
from headrace.http.console.page_frame import Sheet
from headrace.model.effects import DeadEvent
from headrace.model.function import AppSpec
from headrace.model.triggers.base import StreamTrigger
from headrace.telemetry.history import Counters, LogLine, RunRecord
from headrace.topology.graph import Graph, graph_of
from headrace.topology.map import MapRow, rows_of, trigger_words

REFRESH_S = 2
PARKED_SHOWN, DEAD_SHOWN, FUNCTIONS_SHOWN = 20, 8, 200
OWN = "_bus"
"""The platform's own app: its routers are how rules work, and no part of what anybody declared."""


@dataclass(frozen=True, kw_only=True)
class Overview:
    """Contents of the page, read at one moment.

    Attributes:
        ends: By stream, how many events were ever appended to it.
        rates: By function and the stream they came from, events a second.
        failed: The latest runs that did not succeed, newest first.
    """

    apps: Sequence[AppSpec]
    ends: Mapping[str, int]
    lag: Sequence[LagRow]
    sources: Sequence[SourceRow]
    counters: dict[str, Counters]
    instances: Sequence[object]
    dead: Sequence[DeadEvent]
    parked: Sequence[ParkedKey]
    rates: Mapping[tuple[str, str], float]
    failed: Sequence[RunRecord]
    logs: Sequence[LogLine]


def page(shown: Overview) -> Sheet:
    """The page."""
    return Sheet(way="Overview", title="Overview", pieces=_pieces(shown), refresh_s=REFRESH_S)


def _pieces(shown: Overview) -> Iterator[Markup]:
    yield from section(
        "Topology", _topology(shown), "No app is deployed: `headrace dev app.py` runs one."
    )
    yield from section("Triggers that fail", failing_table(shown.sources))
    yield from section("Partitions that are behind or not running", behind_table(shown.lag))
    yield from section(
        "Parked keys",
        _few(parked_table(shown.parked[:PARKED_SHOWN]), len(shown.parked) > PARKED_SHOWN),
    )
    yield from section(
        "Dead letters", _few(dead_table(shown.dead[:DEAD_SHOWN]), len(shown.dead) > DEAD_SHOWN)
    )
    yield from section("Functions", _functions(shown))
    yield from section("Latest failed runs", runs_table(shown.failed))
    yield from section(
        "Instances", instances_table(shown.instances), "None runs: nothing is asked of one."
    )
    yield from section("Log", logs_table(shown.logs), "No function has written anything.")


def _few(shown: Iterator[Markup], more: bool) -> Iterator[Markup]:
    """The first ones of a table, and where the others are."""
    yield from shown
    if more:
        yield paragraph(to("/console/failures", "all failures"))


def _topology(shown: Overview) -> Iterator[Markup]:
    apps = [app for app in shown.apps if app.name != OWN]
    doing = sum(len(app.functions) + len(app.forwards) for app in apps)
    streams = {stream.name for app in apps for stream in app.streams}
    if doing + len(streams) > MAX_NODES:
        # Before anything is built that grows with them.
        yield too_many(doing, len(streams))
        return
    # What a function publishes need not be declared; what it was seen to publish is drawn too.
    graph = graph_of(apps, {name: each.outputs for name, each in shown.counters.items()})
    lag = _by_function(shown.lag)
    yield NOTHING
    notes = _notes(shown, apps, lag)
    yield NOTHING
    yield from picture(graph, notes, _lines(shown, graph, lag))


def _notes(
    shown: Overview, apps: Sequence[AppSpec], lag: Mapping[str, Sequence[LagRow]]
) -> dict[str, NodeCaption]:
    notes = {stream: NodeCaption(f"{count:,} events") for stream, count in shown.ends.items()}
    for app in apps:
        for function in app.functions:
            if not any(isinstance(each, StreamTrigger) for each in function.triggers):
                last = function.triggers[-1] if function.triggers else None
                notes[function.name] = NodeCaption(
                    "" if last is None else trigger_words(function, last)
                )
        for forward in app.forwards:
            notes[forward.name] = NodeCaption("forward")
    for name, rows in lag.items():
        behind = sum(row.lag for row in rows)
        states = [row.state for row in rows if row.state != "running"]
        if states:
            notes[name] = NodeCaption(states[0], bad=True)
        elif behind or name not in notes:
            notes[name] = NodeCaption(f"{behind:,} behind" if behind else "up to date")
    for parked in shown.parked:
        notes[parked.function] = NodeCaption("keys are parked", bad=True)
    for source in shown.sources:
        if source.state != "running":
            notes[source.function] = NodeCaption(f"{source.trigger} {source.state}", bad=True)
    return notes


def _lines(
    shown: Overview, graph: Graph, lag: Mapping[str, Sequence[LagRow]]
) -> dict[tuple[str, str], EdgeLabel]:
    """Return the events per second along the lines, and the lag at their ends."""
    found = {}
    for edge in graph.edges:
        if edge.kind != "listens":
            continue
        rows = [row for row in lag.get(edge.target, ()) if row.stream == edge.source]
        behind = sum(row.lag for row in rows)
        stuck = any(row.state != "running" for row in rows)
        above = rate(shown.rates.get((edge.target, edge.source), 0.0))
        if above or behind:
            waits = f"{behind:,} behind" if behind else ""
            found[edge.source, edge.target] = EdgeLabel(above, waits, bad=stuck)
    return found


def _by_function(lag: Sequence[LagRow]) -> dict[str, list[LagRow]]:
    found: dict[str, list[LagRow]] = {}
    for row in lag:
        found.setdefault(row.function, []).append(row)
    return found


def _functions(shown: Overview) -> Iterator[Markup]:
    reported = rows_of(shown.apps)
    heads = (
        "~function",
        "~trigger",
        "?batch, order",
        "?retry, then",
        "#events",
        "#runs",
        "#failed",
        "#?mean ms",
    )
    cells = (_function(shown, row) for row in islice(reported, FUNCTIONS_SHOWN))
    yield from table(heads, cells)
    left = 0
    for _ in reported:
        left += 1
        yield NOTHING
    if left:
        yield Markup("<p>and {} more: {} lists all</p>").format(f"{left:,}", code("headrace map"))


def _function(shown: Overview, row: MapRow) -> Sequence[str]:
    counters = shown.counters.get(row.function, Counters())
    runs = sum(counters.outcomes.values())
    failed = sum(count for kind, count in counters.outcomes.items() if kind != "succeeded")
    return (
        stacked(to_function(row.function), row.summary),
        stacked(row.trigger, listed(to_stream(each) for each in row.streams)),
        stacked(row.batch, row.order),
        stacked(row.retry, row.on_failure),
        f"{counters.events:,}",
        f"{runs:,}",
        toned(f"{failed:,}", "bad" if failed else "soft"),
        f"{1_000 * counters.seconds / runs:.2f}" if runs else "-",
    )


def behind_table(lag: Sequence[LagRow]) -> Iterator[Markup]:
    """Partitions in which a function is behind, or does not run, a row at a time."""
    rows = (
        (
            to_function(row.function),
            to_partition(row.stream, row.partition),
            f"{row.position:,}",
            f"{row.high:,}",
            f"{row.lag:,}",
            span(row.oldest_age),
            toned(row.state, "soft" if row.state == "running" else "bad"),
        )
        for row in lag
        if row.lag or row.state != "running"
    )
    return table(
        ("function", "partition", "#?position", "#?end", "#lag", "#oldest", "~state"),
        islice(rows, 50),
    )


def failing_table(sources: Sequence[SourceRow]) -> Iterator[Markup]:
    """Triggers that bring nothing in, with their error, a row at a time."""
    rows = (
        (
            to_function(row.function),
            row.trigger,
            toned(row.state, "bad"),
            f"{row.failures:,}",
            code(row.error[:300]),
        )
        for row in sources
        if row.state != "running"
    )
    return table(("function", "trigger", "state", "#times", "~error"), islice(rows, 50))


def instances_table(instances: Sequence[object]) -> Iterator[Markup]:
    """Processes that run functions, or are ready to."""
    rows = (
        (
            code(str(getattr(view, "id", ""))),
            to_function(str(getattr(view, "function", ""))),
            f"{getattr(view, 'pid', 0)}",
            str(getattr(view, "state", "")),
            f"{getattr(view, 'invocations', 0):,}",
            span(getattr(view, "age", 0.0)),
            f"{getattr(view, 'memory', 0) / (1 << 20):.1f}",
        )
        for view in instances[:100]
    )
    return table(("instance", "function", "#?pid", "state", "#runs", "#?age", "#MiB"), rows)


def runs_table(runs: Sequence[RunRecord]) -> Iterator[Markup]:
    """Invocations as they ended."""
    rows = (
        (
            when(run.started),
            to_function(run.function),
            _first(run),
            f"{run.events:,}",
            f"{run.attempt}",
            toned(run.outcome, "soft" if run.outcome == "succeeded" else "bad")
            + (" cold" if run.cold else ""),
            f"{run.wall * 1_000:.1f}",
            short(run.cause),
        )
        for run in runs
    )
    return table(
        (
            "started (UTC)",
            "function",
            "first event",
            "#events",
            "#?attempt",
            "outcome",
            "#ms",
            "~cause",
        ),
        rows,
    )


def _first(run: RunRecord) -> Markup:
    """The first event of a run; a call has none."""
    return to_event(run.first) if run.first else toned("call", "soft")


def logs_table(lines: Sequence[LogLine]) -> Iterator[Markup]:
    """Show the lines that functions wrote, newest first."""
    rows = (
        (when(line.time), to_function(line.function), line.level, code(line.text[:300]))
        for line in reversed(lines)
    )
    return table(("time (UTC)", "function", "?level", "~line"), rows)
