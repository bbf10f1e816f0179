"""One function, and what all of them ran and wrote. Values -> HTML."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from headrace.admin.lag import LagRow
from headrace.admin.schedules import ScheduleRow
from headrace.admin.sources import SourceRow
from headrace.delivery.parked import ParkedKey
from headrace.http.console.failures import dead_table, parked_table
from headrace.http.console.html_parts import (
    NOTHING,
    code,
    facts,
    listed,
    section,
    table,
    to_stream,
    toned,
    when,
)
from headrace.http.console.overview import (
    behind_table,
    failing_table,
    instances_table,
    logs_table,
    runs_table,
)
from headrace.http.console.page_frame import Sheet
from headrace.http.console.triggers import schedules_table
from headrace.model.effects import DeadEvent
from headrace.runtime.instance_views import FailedStart
from headrace.telemetry.history import Counters, LogLine, RunRecord
from headrace.topology.graph import HOW_SHOWN
from headrace.topology.map import MapRow

REFRESH_S = 5


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Contents of a function's page, read at one moment.

    Attributes:
        rows: The map's rows, one for each trigger.
    """

    name: str
    rows: Sequence[MapRow]
    counters: Counters
    failed_start: FailedStart | None
    lag: Sequence[LagRow]
    sources: Sequence[SourceRow]
    schedules: Sequence[ScheduleRow]
    dead: Sequence[DeadEvent]
    parked: Sequence[ParkedKey]
    instances: Sequence[object]
    runs: Sequence[RunRecord]
    logs: Sequence[LogLine]


def page(shown: Shown) -> Sheet:
    """One function whole: what sets it off, under which policies, and how it fares."""
    return Sheet(way="Overview", title=shown.name, pieces=_pieces(shown), refresh_s=REFRESH_S)


def _pieces(shown: Shown) -> Iterator[Markup]:
    yield Markup("<section>")
    yield from _about(shown)
    yield Markup("</section>")
    yield from section("Triggers that fail", failing_table(shown.sources))
    yield from section("Partitions that are behind or not running", behind_table(shown.lag))
    yield from section("Parked keys", parked_table(shown.parked))
    yield from section("Dead letters", dead_table(shown.dead))
    yield from section("Schedules", schedules_table(shown.schedules))
    yield from section(
        "Latest runs", runs_table(shown.runs), "It has not run since this node started."
    )
    yield from section("Instances", instances_table(shown.instances))
    yield from section(
        "Log", logs_table(shown.logs), "It has written nothing since this node started."
    )


def runs_page(runs: Sequence[RunRecord], logs: Sequence[LogLine]) -> Sheet:
    """The latest runs of all functions, and what they wrote."""
    pieces = itertools.chain(
        section("Latest runs", runs_table(runs), "Nothing has run since this node started."),
        section("Log", logs_table(logs), "No function has written anything."),
    )
    return Sheet(way="Runs", title="Runs", pieces=pieces, refresh_s=REFRESH_S)


def _output(row: MapRow, name: str) -> Markup:
    """A stream, with how it is known where it is not declared."""
    note = HOW_SHOWN[row.known_by.get(name, "declared")]
    return to_stream(name) + toned(f" ({note})", "soft") if note else to_stream(name)


def _failed_start(found: FailedStart | None) -> Markup:
    if found is None:
        return NOTHING
    return toned(found.cause, "bad") + Markup("; tried again at {}").format(when(found.next_start))


def _about(shown: Shown) -> Iterator[Markup]:
    counters = shown.counters
    outcomes = listed(
        toned(f"{count:,} {kind}", "soft" if kind == "succeeded" else "bad")
        for kind, count in sorted(counters.outcomes.items())
    )
    if not shown.rows:
        yield facts({"runs": outcomes or "none"})
        return
    row = shown.rows[0]
    yield from table(
        ("~trigger", "streams"),
        [(each.trigger, listed(to_stream(name) for name in each.streams)) for each in shown.rows],
    )
    left_out = ", ".join(f"{count:,} by {why}" for why, count in sorted(counters.left_out.items()))
    yield facts(
        {
            "what it does": row.summary,
            "publishes to": listed(_output(row, name) for name in row.outputs),
            "batch": row.batch,
            "order": row.order,
            "held back by": row.flow if row.flow != "-" else "",
            "retry": row.retry,
            "then": row.on_failure,
            "breaker": row.breaker,
            "timeout": f"{row.timeout:g} s",
            "instances": row.scaling,
            "does not start": _failed_start(shown.failed_start),
            "events": f"{counters.events:,}",
            "runs": outcomes or "none",
            "left out": left_out,
            "version": code(row.version) if row.version else "",
            "owner": row.owner,
            "code": code(row.source) if row.source else "",
        }
    )
