"""Triggers other than streams: schedules, routes, rules, sources; and queues. Values -> HTML."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import msgspec
from markupsafe import Markup

from headrace.admin.queues import QueueRow
from headrace.admin.schedules import ScheduleRow
from headrace.admin.sources import SourceRow
from headrace.http.console.html_parts import (
    code,
    listed,
    section,
    short,
    size,
    span,
    stacked,
    table,
    to,
    to_function,
    to_stream,
    toned,
    when,
)
from headrace.http.console.page_frame import Sheet
from headrace.model.function import AppSpec, FunctionSpec
from headrace.model.triggers.bus import Rule
from headrace.model.triggers.http import Http, Webhook
from headrace.sources.schedules.source import in_zone
from headrace.topology.map import trigger_words

SHOWN_ELSEWHERE = frozenset({"cron", "every", "at", "http", "webhook", "rule"})


def triggers_page(
    apps: Sequence[AppSpec], schedules: Sequence[ScheduleRow], sources: Sequence[SourceRow]
) -> Sheet:
    """Every trigger that is not a stream, and how it stands."""
    pieces = itertools.chain(
        section("Sources", _sources(apps, sources), "No function listens to another system."),
        section("Schedules", schedules_table(schedules), "No function has a schedule."),
        section("Routes and webhooks", _routes(apps), "No function has a route."),
        section("Rules of the event bus", _rules(apps), "No rule is declared."),
    )
    return Sheet(way="Triggers", title="Triggers", pieces=pieces)


def _sources(apps: Sequence[AppSpec], sources: Sequence[SourceRow]) -> Iterator[Markup]:
    functions = {each.name: each for app in apps for each in app.functions}
    rows = (
        (
            to_function(row.function),
            _in_words(functions.get(row.function), row),
            toned(row.state, "good" if row.state == "running" else "bad"),
            when(row.since),
            f"{row.failures:,}",
            to_stream(row.stream),
            short(row.error, 300),
        )
        for row in sources
        if row.trigger not in SHOWN_ELSEWHERE
    )
    heads = ("function", "~trigger", "state", "?since", "#?failures", "?written to", "~error")
    return table(heads, rows)


def _in_words(function: FunctionSpec | None, row: SourceRow) -> str:
    if function is None or row.place >= len(function.triggers):
        return row.trigger
    return trigger_words(function, function.triggers[row.place])


def schedules_table(schedules: Sequence[ScheduleRow]) -> Iterator[Markup]:
    """Show when each schedule fires next, and how to fire it by hand."""
    return table(
        ("function", "schedule", "?misfire", "next, in its zone", "?last fired for", "?fire now"),
        (
            (
                to_function(row.function),
                code(row.schedule),
                row.misfire,
                _in_zone(row.next, row.tz),
                _in_zone(row.fired, row.tz),
                code(
                    f"headrace schedule fire {row.function}"
                    + (f" --number {row.number}" if row.number else "")
                ),
            )
            for row in schedules
        ),
    )


def _in_zone(time: int | None, tz: str) -> str:
    return "-" if time is None else in_zone(time, tz).replace("T", " ")


def _routes(apps: Sequence[AppSpec]) -> Iterator[Markup]:
    return table(("route", "function", "?answers", "~who may", "#?largest body"), _route_rows(apps))


def _route_rows(apps: Sequence[AppSpec]) -> Iterator[Sequence[str]]:
    for app in apps:
        for function in app.functions:
            for each in function.triggers:
                if isinstance(each, Http):
                    guard = f"a token for {each.auth.scope}" if each.auth is not None else "anybody"
                    methods, mode = ", ".join(each.methods), each.mode
                elif isinstance(each, Webhook):
                    guard = f"signed as {each.signature.__struct_config__.tag}"
                    methods, mode = "POST", "async"
                else:
                    continue
                yield (
                    code(f"{methods} {each.path}"),
                    to_function(function.name),
                    mode,
                    guard,
                    size(each.max_bytes),
                )


def _rules(apps: Sequence[AppSpec]) -> Iterator[Markup]:
    rows = (
        (
            listed(to_stream(name) for name in rule.watched),
            code(msgspec.json.encode(rule.pattern).decode()),
            target,
            "rewritten" if rule.path or rule.template else "as it is",
        )
        for app in apps
        for target, rule in _aims(app)
    )
    return table(("watches", "~pattern", "target", "?event"), rows)


def _aims(app: AppSpec) -> Iterator[tuple[str, Rule]]:
    """An app's rules, and where each of them leads."""
    for function in app.functions:
        for trigger in function.triggers:
            if isinstance(trigger, Rule):
                yield to_function(function.name), trigger
    for forward in app.forwards:
        target: str = to_stream(forward.stream) if forward.stream is not None else ""
        if forward.http is not None:
            target = forward.http.url
        yield stacked(target, forward.name), forward.rule


def queues_page(queues: Sequence[QueueRow]) -> Sheet:
    """Every queue, and for each of its readers what waits."""
    rows = (
        (
            stacked(to_stream(queue.queue), _settings(queue)),
            "programs outside" if reader.outside else to_function(reader.group),
            f"{reader.waiting:,}",
            f"{reader.in_flight:,}",
            f"{queue.delayed:,}",
            toned(f"{reader.dead:,}", "bad" if reader.dead else "soft"),
            toned(f"{reader.parked:,}", "bad" if reader.parked else "soft"),
            span(reader.oldest_age),
            toned(reader.state, "soft" if reader.state == "running" else "bad"),
        )
        for queue in queues
        for reader in queue.readers
    )
    heads = (
        "queue",
        "reader",
        "#waiting",
        "#in flight",
        "#?delayed",
        "#dead",
        "#?parked",
        "#?oldest",
        "?state",
    )
    body = section(
        "Queues", table(heads, rows), 'No queue is declared: `app.queue("jobs")` declares one.'
    )
    look = to("/console/failures", "dead letters and parked keys")
    more = Markup("<p>{} looks into one; {} wait elsewhere.</p>").format(
        code("headrace queue show QUEUE"), look
    )
    pieces = itertools.chain(body, [more] if queues else [])
    return Sheet(way="Queues", title="Queues", pieces=pieces)


def _settings(queue: QueueRow) -> str:
    settings = queue.settings
    words = [f"visible again after {span(settings.visibility)}"]
    words.append(f"{settings.max_receives} times at most")
    if settings.fifo:
        words.append("in order per group")
    return ", ".join(words)
