"""Graph of functions and streams, from what apps declare. Pure.

In: `AppSpec`s, and where functions were seen to publish. Out: a `Graph` of nodes (streams, functions,
forwards) and edges. A function's edges out are what it declared (`output`, `publishes`), what its code
says by name, and what was observed; each says which of these it is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal, TypeAlias

import msgspec

from headrace.model.function import AppSpec, FunctionSpec, StreamSpec
from headrace.model.triggers.base import StreamTrigger, Trigger
from headrace.model.triggers.bus import Forward, Rule
from headrace.model.triggers.files import Missing, Silence
from headrace.model.triggers.lag import Lag

How: TypeAlias = Literal["declared", "code", "observed"]
"""How an edge is known: its function says so, its code does, or a run was seen to."""
HOW_SHOWN: dict[How, str] = {"declared": "", "code": "in code", "observed": "observed"}
"""Label of an edge; nothing where it is declared."""
Observed: TypeAlias = Mapping[str, Collection[str]]
"""By function, the streams that its runs were seen to publish to."""


class Edge(msgspec.Struct, frozen=True, order=True):
    """From a stream to a function that listens or watches, or from a function to a stream.

    A listener gets the stream's events; a watcher learns of their absence only, so events go no
    further along such an edge. A forward listens and publishes like a function.
    """

    source: str
    target: str
    kind: Literal["listens", "publishes", "watches"]
    how: How = "declared"


class Graph(msgspec.Struct, frozen=True):
    """A deployment, as nodes and edges.

    Attributes:
        streams: By name; those only named by a function have no entry.
        functions: By full name.
        edges: Sorted.
        forwards: By full name.
    """

    streams: dict[str, StreamSpec]
    functions: dict[str, FunctionSpec]
    edges: tuple[Edge, ...]
    forwards: dict[str, Forward] = {}

    def listeners(self, stream: str) -> list[str]:
        """The functions and forwards that listen to a stream."""
        return [e.target for e in self.edges if e.kind == "listens" and e.source == stream]

    def watchers(self, stream: str) -> list[str]:
        """The functions that watch for a stream's silence, or of what is missing there."""
        return [e.target for e in self.edges if e.kind == "watches" and e.source == stream]

    def publishers(self, stream: str) -> list[str]:
        """The functions and forwards that are known to publish to a stream."""
        return [e.source for e in self.edges if e.kind == "publishes" and e.target == stream]

    def named(self) -> set[str]:
        """Every stream some function or forward names."""
        return {e.target if e.kind == "publishes" else e.source for e in self.edges}

    def following(self, node: str) -> list[str]:
        """The streams that a function or forward is known to publish to."""
        return [e.target for e in self.edges if e.kind == "publishes" and e.source == node]


def graph_of(apps: Iterable[AppSpec], observed: Observed | None = None) -> Graph:
    """The graph of what `apps` declare, of what their code says, and of what was `observed`."""
    streams: dict[str, StreamSpec] = {}
    functions: dict[str, FunctionSpec] = {}
    forwards: dict[str, Forward] = {}
    edges: set[Edge] = set()
    # Streams of the first app that declares them: `checks` reports a second one.
    for app in apps:
        for stream in app.streams:
            streams.setdefault(stream.name, stream)
        for function in app.functions:
            functions[function.name] = function
            for name in inputs(function):
                edges.add(Edge(name, function.name, "listens"))
            for name, how in outputs(function, (observed or {}).get(function.name, ())).items():
                edges.add(Edge(function.name, name, "publishes", how))
            for trigger in function.triggers:
                for name in watched_by(trigger):
                    edges.add(Edge(name, function.name, "watches"))
        for forward in app.forwards:
            forwards[forward.name] = forward
            for name in forward.rule.watched:
                edges.add(Edge(name, forward.name, "listens"))
            if forward.stream is not None:
                edges.add(Edge(forward.name, forward.stream, "publishes"))
    return Graph(streams, functions, tuple(sorted(edges)), forwards)


def inputs(function: FunctionSpec) -> list[str]:
    """The streams a function listens to, in the order declared."""
    found = [name for trigger in function.triggers for name in streams_of(trigger)]
    # In the order declared, each once: two triggers may read one stream.
    return list(dict.fromkeys(found))


def streams_of(trigger: Trigger) -> tuple[str, ...]:
    """The streams by name that a trigger listens to."""
    match trigger:
        case Rule():
            return trigger.watched
        case StreamTrigger():
            return trigger.streams
        case Lag():
            return (trigger.stream,)
        case _:
            return ()


def watched_by(trigger: Trigger) -> tuple[str, ...]:
    """The streams by name whose silence, or missing events, a trigger reports."""
    match trigger:
        case Silence():
            return (trigger.stream,)
        case Missing():
            return (trigger.left, trigger.right)
        case _:
            return ()


def outputs(function: FunctionSpec, observed: Iterable[str] = ()) -> dict[str, How]:
    """The streams a function publishes to, and how that is known; first what it says itself."""
    first = [function.output] if function.output is not None else []
    found: dict[str, How] = dict.fromkeys([*first, *function.publishes], "declared")
    for name in function.in_code:
        # The strongest evidence stays: declared, then in code, then observed.
        found.setdefault(name, "code")
    for name in sorted(observed):
        # The platform's own streams are how a publication travels, not where it goes.
        if not name.startswith("_"):
            found.setdefault(name, "observed")
    return found


def declared_in(graph: Graph) -> Graph:
    """The graph without the edges that are not declared."""
    return msgspec.structs.replace(
        graph, edges=tuple(edge for edge in graph.edges if edge.how == "declared")
    )


def cycles(nodes: Iterable[str], following: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Every knot of nodes that reach each other (Tarjan, 1972), each from its smallest name.

    Written without recursion, so that a long chain cannot exhaust the stack.
    """
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    on_stack: set[str] = set()
    found: list[list[str]] = []
    for root in sorted(nodes):
        if root in number:
            continue
        work: list[tuple[str, int]] = [(root, 0)]
        while work:
            node, step = work.pop()
            if step == 0:
                number[node] = low[node] = len(number)
                stack.append(node)
                on_stack.add(node)
            targets = following.get(node, ())
            descended = False
            for index in range(step, len(targets)):
                target = targets[index]
                if target not in number:
                    # The place to continue from: this is the frame that recursion would keep.
                    work.append((node, index + 1))
                    work.append((target, 0))
                    descended = True
                    break
                if target in on_stack:
                    # `number`, not `low`, of a node on the stack: as in Tarjan's paper.
                    low[node] = min(low[node], number[target])
            if descended:
                continue
            if low[node] == number[node]:
                knot: list[str] = []
                while True:
                    member = stack.pop()
                    on_stack.discard(member)
                    knot.append(member)
                    if member == node:
                        break
                # A single node is a cycle only with an edge to itself.
                if len(knot) > 1 or node in targets:
                    found.append(_from_smallest(knot, following))
            if work:
                parent = work[-1][0]
                low[parent] = min(low[parent], low[node])
    # Sorted, so that the same apps give the same findings in the same order.
    return sorted(found)


def _from_smallest(knot: list[str], following: Mapping[str, Sequence[str]]) -> list[str]:
    """One way round: the shortest cycle through the knot's smallest member."""
    members = set(knot)
    start = min(knot)
    before: dict[str, str] = {}
    waiting = [start]
    for node in waiting:
        # Breadth first, so the way found is a shortest one.
        for target in following.get(node, ()):
            if target == start:
                way = [node]
                while way[-1] != start:
                    way.append(before[way[-1]])
                return way[::-1]
            if target in members and target not in before:
                before[target] = node
                waiting.append(target)
    return sorted(knot)
