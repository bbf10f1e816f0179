"""One function, and what all of them ran and wrote. Values -> HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from headrace.delivery.lag import LagRow
from headrace.delivery.parking import ParkedKey
from headrace.delivery.runs import Counters, LogLine, Run
from headrace.delivery.schedules import ScheduleRow
from headrace.delivery.sources import SourceRow
from headrace.faces.console.failures import dead_table, parked_table
from headrace.faces.console.frame import Frame, document
from headrace.faces.console.overview import (
    behind_pieces,
    failing_pieces,
    instances_table,
    logs_table,
    runs_table,
)
from headrace.faces.console.parts import (
    NOTHING,
    code,
    facts,
    listed,
    section,
    section_pieces,
    table,
    to_stream,
    toned,
)
from headrace.faces.console.sources import schedules_table
from headrace.model.effects import DeadEvent
from headrace.topology.map import MapRow

REFRESH_S = 5


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a function's page shows, read at one moment.

    Attributes:
        rows: The map's rows, one for each trigger.
    """

    name: str
    rows: Sequence[MapRow]
    counters: Counters
    lag: Sequence[LagRow]
    sources: Sequence[SourceRow]
    schedules: Sequence[ScheduleRow]
    dead: Sequence[DeadEvent]
    parked: Sequence[ParkedKey]
    instances: Sequence[object]
    runs: Sequence[Run]
    logs: Sequence[LogLine]


def page(frame: Frame, shown: Shown) -> Markup:
    """One function whole: what sets it off, under which policies, and how it fares."""
    parts = [
        Markup("<section>{}</section>").format(_about(shown)),
        *section_pieces("Triggers that fail", failing_pieces(shown.sources)),
        *section_pieces("Partitions that are behind or not running", behind_pieces(shown.lag)),
        section("Parked keys", parked_table(shown.parked)),
        section("Dead letters", dead_table(shown.dead)),
        section("Schedules", schedules_table(shown.schedules)),
        section("Latest runs", runs_table(shown.runs), "It has not run since this node started."),
        section("Instances", instances_table(shown.instances)),
        section("Log", logs_table(shown.logs), "It has written nothing since this node started."),
    ]
    return document(frame, "Overview", shown.name, NOTHING.join(parts), refresh_s=REFRESH_S)


def runs_page(frame: Frame, runs: Sequence[Run], logs: Sequence[LogLine]) -> Markup:
    """The latest runs of all functions, and what they wrote."""
    parts = [
        section("Latest runs", runs_table(runs), "Nothing has run since this node started."),
        section("Log", logs_table(logs), "No function has written anything."),
    ]
    return document(frame, "Runs", "Runs", NOTHING.join(parts), refresh_s=REFRESH_S)


def _about(shown: Shown) -> Markup:
    counters = shown.counters
    outcomes = listed(
        toned(f"{count:,} {kind}", "soft" if kind == "succeeded" else "bad")
        for kind, count in sorted(counters.outcomes.items())
    )
    if not shown.rows:
        return facts({"runs": outcomes or "none"})
    row = shown.rows[0]
    triggers = table(
        ("~trigger", "streams"),
        [(each.trigger, listed(to_stream(name) for name in each.streams)) for each in shown.rows],
    )
    outputs = sorted({*row.outputs, *counters.outputs})
    left_out = ", ".join(f"{count:,} by {why}" for why, count in sorted(counters.left_out.items()))
    return triggers + facts(
        {
            "what it does": row.summary,
            "publishes to": listed(to_stream(name) for name in outputs),
            "batch": row.batch,
            "order": row.order,
            "retry": row.retry,
            "then": row.on_failure,
            "breaker": row.breaker,
            "timeout": f"{row.timeout:g} s",
            "instances": row.scaling,
            "events": f"{counters.events:,}",
            "runs": outcomes or "none",
            "left out": left_out,
            "version": code(row.version) if row.version else "",
            "owner": row.owner,
            "code": code(row.source) if row.source else "",
        }
    )
