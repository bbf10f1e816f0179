"""The function-trigger map: one row per function and trigger, as values and as a plain table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec
import msgspec.structs

from headrace.model.flow_control import (
    Concurrency,
    Debounce,
    Priority,
    Sample,
    Singleton,
    Throttle,
)
from headrace.model.function import AppSpec, FunctionSpec
from headrace.model.policy import MAX_FLOW_LIMIT, Breaker, OnFailure, Retry, Scaling
from headrace.model.triggers.base import CallTrigger, StreamTrigger, Trigger
from headrace.model.triggers.bus import Forward, Rule
from headrace.model.triggers.foreign import ForeignTrigger
from headrace.model.triggers.http import Http, Webhook
from headrace.topology.external_consumers import consumer_of
from headrace.topology.graph import HOW_SHOWN, How, Observed, outputs, streams_of, watched_by

MAX_PATTERN = 60


class MapRow(msgspec.Struct, frozen=True):
    """A function, one of its triggers, and the policies it runs under, in words.

    Attributes:
        function: The full name.
        streams: What it listens to, or watches, by this trigger; empty where it is called.
        trigger: The kind of trigger and its options.
        group: The consumer group.
        batch: Batch size and window.
        order: Whose order is kept (`partition`, `key`, `none`), and how many batches at once.
        retry: The retry policy.
        on_failure: What becomes of an event that cannot be done.
        breaker: The circuit breaker.
        scaling: How many instances.
        outputs: Where it publishes to.
        known_by: How each of these is known: it is `declared`, it stands in the `code`, or it was
            `observed`.
        flow: How often, and how many at once, it may run.
        timeout: Seconds one invocation may take.
        version: The hash of the code.
        owner: Who answers for the app.
        summary: The first line of the handler's docstring.
        source: Where the handler stands.
        stores: The stores of its app, each as a sentence.
        settings: The settings of its app, each as a sentence; never their values.
        secrets: The names of the secrets it may ask for.
    """

    function: str
    streams: tuple[str, ...]
    trigger: str
    group: str
    batch: str
    order: str
    retry: str
    on_failure: str
    breaker: str
    scaling: str
    outputs: tuple[str, ...]
    timeout: float
    version: str
    owner: str
    summary: str
    source: str
    stores: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    known_by: dict[str, How] = {}
    flow: str = "-"

    @property
    def shown_outputs(self) -> list[str]:
        """Each output, with how it is known where it is not declared."""
        notes = ((name, HOW_SHOWN[self.known_by.get(name, "declared")]) for name in self.outputs)
        return [f"{name} ({note})" if note else name for name, note in notes]


def map_rows(apps: Iterable[AppSpec], observed: Observed | None = None) -> list[MapRow]:
    """All the rows of `rows_of`."""
    return list(rows_of(apps, observed))


def rows_of(apps: Iterable[AppSpec], observed: Observed | None = None) -> Iterator[MapRow]:
    """The rows one by one, by app and in the order declared; queues' consumers and forwards come last."""
    for app in apps:
        for function in app.functions:
            yield from rows_of_function(app, function, (observed or {}).get(function.name, ()))
        consumers = (each for stream in app.streams if (each := consumer_of(stream, app.name)))
        yield from (_row(app, each, each.triggers[0], {}) for each in consumers)
        yield from (_forward(app, forward) for forward in app.forwards)


def setting_notes(apps: Iterable[AppSpec]) -> Iterator[str]:
    """Each setting that apps declare, with its type and where its value comes from."""
    for app in apps:
        for setting in app.settings:
            origin = f"from {setting.where}" if setting.where else f"default {setting.default}"
            origin = "not set" if setting.is_missing else origin
            yield f"setting `{app.name}.{setting.name}` ({setting.type}): {origin}"


def store_notes(apps: Iterable[AppSpec]) -> Iterator[str]:
    """Each store that apps declare, with the type of its values and how long they are kept."""
    for app in apps:
        for store in app.stores:
            kept = "" if store.ttl is None else f", kept {_seconds(store.ttl)}"
            yield f"store `{app.name}.{store.name}` ({store.type}){kept}"


def rows_of_function(
    app: AppSpec, function: FunctionSpec, observed: Iterable[str] = ()
) -> Iterator[MapRow]:
    """One row for each of the function's triggers; `observed` is where its runs were seen to publish."""
    known = outputs(function, observed)
    return (_row(app, function, trigger, known) for trigger in function.triggers)


def secret_notes(needed: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Each secret that is used, with who uses it."""
    for name, users in needed.items():
        yield f"secret `{name}`: for {', '.join(f'`{each}`' for each in users)}"


def map_table(rows: Sequence[MapRow]) -> str:
    """The rows as a table of plain text, each column as wide as it must be."""
    heads = (
        "FUNCTION",
        "STREAMS",
        "TRIGGER",
        "BATCH",
        "ORDER",
        "FLOW",
        "TIMEOUT",
        "RETRY",
        "BREAKER",
        "ON FAILURE",
        "SCALING",
        "OUTPUTS",
        "VERSION",
        "OWNER",
    )
    lines = [heads, *(_cells(row) for row in rows)]
    # Measured over all rows first: the table is printed whole.
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _cells(row: MapRow) -> tuple[str, ...]:
    return (
        row.function,
        ", ".join(row.streams) or "-",
        row.trigger,
        row.batch,
        row.order,
        row.flow,
        _seconds(row.timeout) if row.timeout else "-",
        row.retry,
        row.breaker,
        row.on_failure,
        row.scaling,
        ", ".join(row.shown_outputs) or "-",
        row.version or "-",
        row.owner or "-",
    )


def _row(app: AppSpec, function: FunctionSpec, trigger: Trigger, known: dict[str, How]) -> MapRow:
    # Calls have no batch, no order and no group.
    listens = not isinstance(trigger, CallTrigger)
    return MapRow(
        function=function.name,
        streams=streams_of(trigger) or watched_by(trigger),
        trigger=trigger_words(function, trigger),
        group=function.name if listens else "-",
        batch=_batch(function) if listens else "-",
        order=_order(function) if listens else "-",
        retry=_retry(function.retry),
        on_failure=_on_failure(function.on_failure),
        breaker=_breaker(function.breaker),
        scaling=_scaling(function.scaling),
        outputs=tuple(known),
        known_by=known,
        flow=_flow(function),
        timeout=function.timeout,
        # Functions have their own hash, so that a deployment shows which of them changed.
        version=function.version or app.version,
        owner=app.owner,
        summary=function.summary,
        source=function.source,
        stores=tuple(store_notes([app])),
        settings=tuple(setting_notes([app])),
        secrets=function.secrets,
    )


def _forward(app: AppSpec, forward: Forward) -> MapRow:
    """A forward is run by the platform: it has a target, and hardly any policies."""
    http = forward.http
    return MapRow(
        function=forward.name,
        streams=forward.rule.watched,
        trigger=_rule(forward.rule),
        group=f"_bus.http.{forward.name}" if http is not None else "_bus.rules",
        batch="-",
        order="partition",
        retry="-" if http is None else _retry(http.retry),
        on_failure="dead-letter",
        breaker="-",
        scaling="-",
        outputs=(forward.stream or "",) if http is None else (http.url,),
        timeout=0.0 if http is None else http.timeout,
        version=app.version,
        owner=app.owner,
        summary="",
        source="",
    )


def trigger_words(function: FunctionSpec, trigger: Trigger) -> str:
    """A trigger of the function: its kind and its options."""
    return _trigger(trigger) + _written(trigger)


def _trigger(trigger: Trigger) -> str:
    if isinstance(trigger, CallTrigger):
        return "call"
    if isinstance(trigger, Rule):
        return _rule(trigger)
    if not isinstance(trigger, StreamTrigger):
        return _source(trigger)
    words = ["stream" if trigger.merge == "none" else f"merge by {trigger.merge}"]
    if trigger.start != "earliest":
        words.append(f"from {trigger.start}")
    if trigger.pattern is not None:
        words.append("filtered")
    return ", ".join(words)


def _written(trigger: Trigger) -> str:
    """Describe the format of what it reads by this trigger, if it is declared."""
    changes = trigger.changes if isinstance(trigger, (StreamTrigger, ForeignTrigger)) else None
    return "" if changes is None else f", {changes.__struct_config__.tag} changes"


def _rule(rule: Rule) -> str:
    text = msgspec.json.encode(rule.pattern).decode()
    # Patterns may be pages long.
    shown = text if len(text) <= MAX_PATTERN else f"{text[:MAX_PATTERN]}..."
    return f"rule {shown}" + (", rewritten" if rule.path or rule.template else "")


def _source(trigger: Trigger) -> str:
    """The kind of a source and the settings that differ from their defaults."""
    if isinstance(trigger, (Http, Webhook)):
        return _route(trigger)
    words = []
    for field in msgspec.structs.fields(trigger):
        # Shown by `_written`, for streams and foreign systems alike.
        if field.name == "changes":
            continue
        value = getattr(trigger, field.name)
        made = field.default_factory
        # msgspec keeps a default list as a factory.
        default = field.default if made is msgspec.NODEFAULT else made()
        if field.required or value != default:
            # The main setting (a path, an expression) needs no name; the others are unreadable
            # without.
            bare = field.required and isinstance(value, (str, int, float))
            shown = _seconds(value) if isinstance(value, float) else f"{value}"
            words.append(shown if bare else f"{field.name}={shown}")
    # Cut, so that one trigger does not make the whole table wide.
    return f"{trigger.__struct_config__.tag} {', '.join(words)}"[:120]


def _route(route: Http | Webhook) -> str:
    """Describe what a route answers, and what guards it."""
    if isinstance(route, Webhook):
        return f"webhook {route.path}, {route.signature.__struct_config__.tag}"
    words = [f"http {'|'.join(route.methods)} {route.path}", route.mode]
    if route.auth is not None:
        words.append(f"token for {route.auth.scope}")
    if route.legacy is not None:
        words.append(f"{route.legacy.share:.0%} to {route.legacy.upstream}")
    return ", ".join(words)


def _batch(function: FunctionSpec) -> str:
    window = f" in {_seconds(function.batch_window)}" if function.batch_window else ""
    return f"{function.batch_size}{window}"


def _order(function: FunctionSpec) -> str:
    wide = f" x{function.parallelism}" if function.parallelism > 1 else ""
    # Shown only where it differs: at-most-once must not go unnoticed.
    early = ", commits before" if function.commit == "before" else ""
    return f"{function.order}{wide}{early}"


def _retry(retry: Retry) -> str:
    if retry.attempts == 1:
        return "once"
    age = f" within {_seconds(retry.max_event_age)}" if retry.max_event_age is not None else ""
    return f"{retry.attempts}x, {_seconds(retry.initial_delay)}..{_seconds(retry.max_delay)}{age}"


def _flow(function: FunctionSpec) -> str:
    """Describe the flow control: what delays runs, or leaves events out."""
    words = []
    for name in ("concurrency", "throttle", "sample", "debounce", "singleton", "priority"):
        policy = getattr(function, name)
        if policy is not None:
            words.append(_policy(name, policy))
    if function.batch_per_key:
        words.append("a key per batch")
    return "; ".join(words) or "-"


def _policy(name: str, policy: msgspec.Struct) -> str:
    match policy:
        case Concurrency():
            each = f"{policy.key_limit} per key" if policy.key_limit is not None else ""
            whole = f"{policy.limit}" if policy.limit != MAX_FLOW_LIMIT else ""
            return f"{name} {', '.join(filter(None, (whole, each)))}".rstrip()
        case Throttle() | Sample():
            key = " per key" if policy.per_key else ""
            return f"{name} {policy.limit} in {_seconds(policy.per)}{key}"
        case Debounce():
            longest = f", {_seconds(policy.longest)} at most" if policy.longest is not None else ""
            return f"{name} {_seconds(policy.seconds)}{longest}"
        case Singleton():
            return f"{name}, others {policy.otherwise}"
        case Priority():
            return f"{name} by `{policy.header}`"
        case _:
            return name


def _on_failure(policy: OnFailure) -> str:
    return str(policy.__struct_config__.tag)


def _breaker(breaker: Breaker | None) -> str:
    if breaker is None:
        return "none"
    return f"after {breaker.failures}, for {_seconds(breaker.pause)}"


def _scaling(scaling: Scaling) -> str:
    return f"{scaling.min}..{scaling.max}"


def _seconds(seconds: float) -> str:
    if seconds >= 3_600 and seconds % 3_600 == 0:
        return f"{seconds / 3_600:g}h"
    if seconds >= 60 and seconds % 60 == 0:
        return f"{seconds / 60:g}m"
    return f"{seconds:g}s" if seconds >= 1 or seconds == 0 else f"{seconds * 1_000:g}ms"
