"""Findings of what is wrong, or looks wrong, with a deployment, before it runs. Pure.

In: `AppSpec`s, and the streams that exist already. Out: findings with a severity. An `error` must
stop a deployment; a `warning` is shown; what cannot be known before running is not guessed at.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final, Literal

import msgspec

from headrace.model.function import AppSpec, StreamSpec
from headrace.model.triggers.base import StreamTrigger
from headrace.model.triggers.bus import DEFAULT_BUS
from headrace.model.triggers.files import Ends
from headrace.topology.graph import Graph, cycles, declared_in, graph_of

# A warning only: a fan-out may well be meant.
MAX_AMPLIFICATION: Final = 16


class Finding(msgspec.Struct, frozen=True, order=True):
    """One thing to look at.

    Attributes:
        severity: `error` or `warning`.
        code: A stable name.
        subject: The function or stream it is about.
        message: What is so, and what to do.
    """

    severity: Literal["error", "warning"]
    code: str
    subject: str
    message: str


def check(apps: Iterable[AppSpec], existing: Iterable[StreamSpec] = ()) -> list[Finding]:
    """Everything found, errors first; `existing` are streams of apps that are not in `apps`."""
    apps = list(apps)
    graph = graph_of(apps)
    # All findings in one list: an author corrects them in one round.
    findings = [
        *refusals(apps, existing),
        *_cycles(graph),
        *_orphans(graph),
        *_amplification(graph),
        *_idle_windows(graph),
    ]
    # A set: two triggers of a function may lead to the same finding.
    return sorted(set(findings))


def refusals(apps: Iterable[AppSpec], existing: Iterable[StreamSpec] = ()) -> list[Finding]:
    """The errors alone, for which a node refuses an app; cheap enough for every deployment."""
    apps = list(apps)
    # Code is not refused for what it may do: it is checked again when it does.
    graph = declared_in(graph_of(apps))
    # What is deployed now replaces what exists: a redeployed app may change its streams.
    known = {stream.name: stream for stream in existing} | graph.streams
    return sorted(
        {
            *_owners(apps),
            *_unknown(graph, known),
            *_foreign(apps, graph, known),
            *_merges(graph, known),
        }
    )


def _owners(apps: list[AppSpec]) -> Iterable[Finding]:
    owners: dict[str, str] = {}
    functions: dict[str, str] = {}
    names: set[str] = set()
    for app in apps:
        for function in app.functions:
            first = functions.setdefault(function.name, app.name)
            if first != app.name:
                yield Finding(
                    "error",
                    "function-twice",
                    function.name,
                    f"apps `{first}` and `{app.name}` both have a function `{function.name}`; rename "
                    "one of the apps",
                )
        if app.name in names:
            yield Finding(
                "error", "app-twice", app.name, f"two apps are called `{app.name}`; rename one"
            )
        names.add(app.name)
        for stream in app.streams:
            first = owners.setdefault(stream.name, app.name)
            if first != app.name:
                yield Finding(
                    "error",
                    "stream-twice",
                    stream.name,
                    f"apps `{first}` and `{app.name}` both declare the stream `{stream.name}`; one of "
                    f'them must own it, the other says `external("{stream.name}")`',
                )


def _unknown(graph: Graph, known: dict[str, StreamSpec]) -> Iterable[Finding]:
    # The default bus is shared by all apps and not declared.
    for name in sorted(graph.named() - known.keys() - {DEFAULT_BUS}):
        users = ", ".join(
            f"`{each}`"
            for each in sorted(
                {*graph.listeners(name), *graph.watchers(name), *graph.publishers(name)}
            )
        )
        # Most unknown names are typing errors.
        like = get_close_matches(name, list(known), n=1)
        hint = f" (did you mean `{like[0]}`?)" if like else ""
        yield Finding(
            "error",
            "unknown-stream",
            name,
            f"{users} names stream `{name}`, which no app declares{hint}; deploy its owner too",
        )


def _foreign(apps: list[AppSpec], graph: Graph, known: dict[str, StreamSpec]) -> Iterable[Finding]:
    app_of = {function.name: app.name for app in apps for function in app.functions}
    app_of |= {forward.name: app.name for app in apps for forward in app.forwards}
    for edge in graph.edges:
        publishes = edge.kind == "publishes"
        who, name = (edge.source, edge.target) if publishes else (edge.target, edge.source)
        what = "function" if who in graph.functions else "forward"
        stream = known.get(name)
        if stream is not None and stream.private and stream.owner not in {"", app_of.get(who)}:
            does = {"listens": "listens to", "publishes": "publishes to", "watches": "watches"}
            yield Finding(
                "error",
                "private-stream",
                who,
                f"`{who}` {does[edge.kind]} `{name}`, which is private to app `{stream.owner}`; "
                f"make the stream public, or move the {what}",
            )


def _merges(graph: Graph, known: dict[str, StreamSpec]) -> Iterable[Finding]:
    for function in graph.functions.values():
        for trigger in function.triggers:
            if not isinstance(trigger, StreamTrigger) or len(trigger.streams) < 2:
                continue
            # Unknown streams are reported by `_unknown`.
            counts = {name: known[name].partitions for name in trigger.streams if name in known}
            if len(set(counts.values())) > 1:
                written = ", ".join(f"`{name}` has {count}" for name, count in counts.items())
                yield Finding(
                    "error",
                    "not-co-partitioned",
                    function.name,
                    f"`{function.name}` merges streams with unequal partitions: {written}; declare "
                    "them with the same number",
                )


def _cycles(graph: Graph) -> Iterable[Finding]:
    following: dict[str, list[str]] = {}
    for edge in graph.edges:
        # Events do not flow along such an edge, so it closes no cycle.
        if edge.kind != "watches":
            following.setdefault(edge.source, []).append(edge.target)
    for knot in cycles([*graph.functions, *graph.forwards, *graph.named()], following):
        yield Finding(
            "warning",
            "cycle",
            knot[0],
            f"events can go round for ever: {' -> '.join(f'`{each}`' for each in [*knot, knot[0]])}; "
            "be sure that each round ends (chains of more than 64 hops are parked)",
        )


def _orphans(graph: Graph) -> Iterable[Finding]:
    apps_that_may = {function.app for function in graph.functions.values()}
    for name, stream in sorted(graph.streams.items()):
        heard = graph.listeners(name) or graph.watchers(name)
        if not heard and stream.private:
            yield Finding(
                "warning",
                "orphan",
                name,
                f"stream `{name}` is private to `{stream.owner}` and none of its functions listens; "
                "make it public, or remove it",
            )
        # An app without functions can only publish from outside, which a private stream does not
        # allow.
        if heard and stream.private and stream.owner not in apps_that_may:
            yield Finding(
                "warning",
                "silent",
                name,
                f"stream `{name}` is private to `{stream.owner}`, which has no function that could "
                "publish to it",
            )


def _idle_windows(graph: Graph) -> Iterable[Finding]:
    """Windows that a pause shorter than they are closes, with what comes later in them dropped."""
    for function in graph.functions.values():
        for trigger in function.triggers:
            # Late events that have a stream of their own are not lost.
            if not isinstance(trigger, Ends) or trigger.late:
                continue
            if (
                trigger.idle is not None
                and trigger.size is not None
                and trigger.idle < trigger.size
            ):
                yield Finding(
                    "warning",
                    "idle-drops",
                    function.name,
                    f"`{function.name}` closes its windows after {trigger.idle:g} s without an event, "
                    f"and they are {trigger.size:g} s long: events that come later for the same "
                    "window are dropped; name a stream for them with `late=`, or make `idle=` longer",
                )


def _amplification(graph: Graph) -> Iterable[Finding]:
    """Count the invocations that one event can lead to along known outputs, cycles left out."""
    memo: dict[str, int] = {}

    def spread(stream: str, way: frozenset[str]) -> int:
        if stream in memo:
            return memo[stream]
        total = 0
        for name in graph.listeners(stream):
            # Cycles have their own warning; counting round them would never end.
            if name in way:
                continue
            runs = 1 if name in graph.functions else 0
            total += runs + sum(spread(out, way | {name}) for out in graph.following(name))
        # Only from the top: a count below depends on the nodes already on the way.
        if not way:
            memo[stream] = total
        return total

    following = {edge.target for edge in graph.edges if edge.kind == "publishes"}
    for stream in sorted(graph.named() - following):
        count = spread(stream, frozenset())
        if count > MAX_AMPLIFICATION:
            yield Finding(
                "warning",
                "amplification",
                stream,
                f"one event on `{stream}` leads to {count} invocations or more along known "
                "outputs; see that this is meant",
            )
