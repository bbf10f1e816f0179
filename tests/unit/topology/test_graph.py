"""The graph of a deployment, its knots, what is wrong with it, and the map people read."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import App, Event
from headrace.model.flow_control import Concurrency, Debounce, Singleton, Throttle
from headrace.model.function import AppSpec, FunctionSpec, StreamSpec
from headrace.model.policy import Breaker, ParkKey, Retry, Scaling
from headrace.model.triggers.base import CallTrigger, StreamTrigger
from headrace.model.triggers.bus import DEFAULT_BUS, Forward, Rule
from headrace.model.triggers.files import Missing, Silence
from headrace.sdk.windows import Windows
from headrace.topology.checks import Finding, check
from headrace.topology.graph import Edge, cycles, graph_of
from headrace.topology.map import map_rows, map_table
from headrace.windows import HoppingWindow, SessionWindow, TumblingWindow


def stream(
    name: str, partitions: int = 1, owner: str = "shop", private: bool = False
) -> StreamSpec:
    return StreamSpec(name=name, owner=owner, partitions=partitions, private=private)


def function(
    name: str,
    *inputs: str,
    output: str | None = None,
    publishes: tuple[str, ...] = (),
    app: str = "shop",
) -> FunctionSpec:
    triggers = tuple(StreamTrigger(streams=(each,)) for each in inputs) or (CallTrigger(),)
    return FunctionSpec(
        name=f"{app}.{name}", app=app, triggers=triggers, output=output, publishes=publishes
    )


def shop(*parts: StreamSpec | FunctionSpec, name: str = "shop") -> AppSpec:
    return AppSpec(
        name=name,
        owner="team",
        version="v1",
        streams=tuple(part for part in parts if isinstance(part, StreamSpec)),
        functions=tuple(part for part in parts if isinstance(part, FunctionSpec)),
    )


def codes(*apps: AppSpec) -> list[tuple[str, str, str]]:
    return [(found.severity, found.code, found.subject) for found in check(apps)]


def test_edges_go_from_streams_to_functions_and_on() -> None:
    graph = graph_of([shop(stream("a"), stream("b"), function("f", "a", output="b"))])
    assert graph.edges == (Edge("a", "shop.f", "listens"), Edge("shop.f", "b", "publishes"))
    assert graph.listeners("a") == ["shop.f"]
    assert graph.publishers("b") == ["shop.f"]
    assert graph.named() == {"a", "b"}


def watching(name: str, *triggers: Silence | Missing, output: str | None = None) -> FunctionSpec:
    return FunctionSpec(name=f"shop.{name}", app="shop", triggers=triggers, output=output)


def forwarding(app: AppSpec, *watched: str, to: str) -> AppSpec:
    rule = Rule({"source": ["a"]}, streams=watched)
    return msgspec.structs.replace(app, forwards=(Forward("shop.keep", rule, to),))


def test_who_watches_a_stream_is_an_edge_of_its_own_kind() -> None:
    silent, missing = Silence("a", after=60.0), Missing("a", "b", within=60.0)
    app = shop(stream("a"), stream("b"), watching("quiet", silent), watching("late", missing))
    graph = graph_of([app])
    assert graph.edges == (
        Edge("a", "shop.late", "watches"),
        Edge("a", "shop.quiet", "watches"),
        Edge("b", "shop.late", "watches"),
    )
    assert graph.listeners("a") == []
    assert graph.watchers("a") == ["shop.late", "shop.quiet"]
    assert graph.named() == {"a", "b"}
    assert [row.streams for row in map_rows([app])] == [("a",), ("a", "b")]


def test_a_forward_is_a_node_between_the_streams_it_joins() -> None:
    graph = graph_of([forwarding(shop(stream("a"), stream("kept")), "a", to="kept")])
    assert graph.edges == (
        Edge("a", "shop.keep", "listens"),
        Edge("shop.keep", "kept", "publishes"),
    )
    assert list(graph.forwards) == ["shop.keep"]


def test_silence_goes_round_no_circle_but_a_forward_does() -> None:
    beat = watching("beat", Silence("a", after=60.0), output="a")
    assert codes(shop(stream("a"), beat)) == []
    back = shop(stream("a"), stream("kept"), function("again", "kept", output="a"))
    (found,) = check([forwarding(back, "a", to="kept")])
    assert found.code == "cycle"
    assert "`a` -> `shop.keep` -> `kept` -> `shop.again` -> `a`" in found.message


def test_a_stream_that_is_only_watched_is_no_orphan_and_one_that_nobody_declares_is_reported() -> (
    None
):
    hidden = stream("a", private=True)
    assert codes(shop(hidden, watching("quiet", Silence("a", after=60.0)))) == []
    assert codes(shop(watching("quiet", Silence("nowhere", after=60.0)))) == [
        ("error", "unknown-stream", "nowhere")
    ]
    assert codes(forwarding(shop(stream("kept")), DEFAULT_BUS, to="kept")) == []


def test_a_private_stream_of_another_app_is_neither_watched_nor_forwarded() -> None:
    other = shop(stream("secret", owner="bank", private=True), name="bank")
    mine = forwarding(
        shop(stream("kept"), watching("quiet", Silence("secret", after=60.0))), "secret", to="kept"
    )
    found = [each for each in check([other, mine]) if each.code == "private-stream"]
    assert [(each.subject, each.message.partition(",")[0]) for each in found] == [
        ("shop.keep", "`shop.keep` listens to `secret`"),
        ("shop.quiet", "`shop.quiet` watches `secret`"),
    ]


def test_a_forward_multiplies_what_follows_but_is_no_run() -> None:
    listeners = [function(f"f{number}", "kept") for number in range(17)]
    app = forwarding(shop(stream("a"), stream("kept"), *listeners), "a", to="kept")
    (found,) = [each for each in check([app]) if each.code == "amplification"]
    assert found.subject == "a"
    assert "leads to 17 invocations" in found.message


def test_a_sound_deployment_has_no_findings() -> None:
    app = shop(stream("a"), stream("b"), function("f", "a", output="b"), function("g", "b"))
    assert codes(app) == []


def test_a_cycle_is_shown_as_the_way_round() -> None:
    (found,) = check(
        [
            shop(
                stream("a"),
                stream("b"),
                function("f", "a", output="b"),
                function("g", "b", output="a"),
            )
        ]
    )
    assert (found.severity, found.code) == ("warning", "cycle")
    assert "`a` -> `shop.f` -> `b` -> `shop.g` -> `a`" in found.message


def test_a_function_that_feeds_itself_is_a_cycle() -> None:
    assert codes(shop(stream("a"), function("f", "a", output="a"))) == [("warning", "cycle", "a")]


def test_a_stream_nobody_declares_is_an_error_with_a_near_name() -> None:
    (found,) = check([shop(stream("orders"), function("f", "order"))])
    assert (found.severity, found.code, found.subject) == ("error", "unknown-stream", "order")
    assert "did you mean `orders`?" in found.message
    assert check([shop(function("f", "order"))], existing=[stream("order", owner="x")]) == []


def test_a_foreign_private_stream_is_an_error() -> None:
    owner = shop(stream("secret", private=True), function("own", "secret"))
    other = shop(function("f", "secret", app="other"), name="other")
    assert codes(owner, other) == [("error", "private-stream", "other.f")]


def test_two_owners_of_a_stream_are_an_error() -> None:
    first, second = shop(stream("a")), shop(stream("a", owner="other"), name="other")
    assert codes(first, second) == [("error", "stream-twice", "a")]
    assert ("error", "app-twice", "shop") in codes(first, first)


def test_merged_streams_must_be_co_partitioned() -> None:
    merged = FunctionSpec(
        name="shop.f", app="shop", triggers=(StreamTrigger(streams=("a", "b"), merge="time"),)
    )
    assert codes(shop(stream("a", 2), stream("b", 3), merged)) == [
        ("error", "not-co-partitioned", "shop.f")
    ]


def test_a_private_stream_nobody_listens_to_is_an_orphan() -> None:
    app = shop(stream("a"), stream("b", private=True), function("f", "a", output="b"))
    assert codes(app) == [("warning", "orphan", "b")]


def test_fan_out_is_counted_along_declared_outputs() -> None:
    parts: list[StreamSpec | FunctionSpec] = [stream("a"), stream("b")]
    parts += [function(f"f{number}", "a", output="b") for number in range(4)]
    parts += [function(f"g{number}", "b") for number in range(4)]
    (found,) = check([shop(*parts)])
    assert (found.code, found.subject) == ("amplification", "a")
    assert "20 invocations" in found.message


def test_errors_come_first() -> None:
    app = shop(stream("a"), function("f", "a", output="a"), function("g", "gone"))
    assert [found.severity for found in check([app])] == ["error", "warning"]
    assert isinstance(check([app])[0], Finding)


@given(
    st.integers(1, 7).flatmap(
        lambda n: st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=14)
    )
)
def test_knots_are_exactly_the_nodes_that_reach_themselves(pairs: list[tuple[int, int]]) -> None:
    following: dict[str, list[str]] = {}
    for source, target in pairs:
        following.setdefault(str(source), []).append(str(target))
    nodes = {str(node) for node in itertools.chain.from_iterable(pairs)}
    reach = {node: _reached(node, following) for node in nodes}
    wanted = sorted({min(b for b in reach[a] if a in reach[b]) for a in nodes if a in reach[a]})
    found = cycles(nodes, following)
    assert [way[0] for way in found] == wanted
    for way in found:
        for here, there in itertools.pairwise([*way, way[0]]):
            assert there in following[here]


def _reached(node: str, following: dict[str, list[str]]) -> set[str]:
    seen: set[str] = set()
    waiting = [node]
    while waiting:
        for target in following.get(waiting.pop(), []):
            if target not in seen:
                seen.add(target)
                waiting.append(target)
    return seen


def test_a_chain_of_ten_thousand_does_not_exhaust_the_stack() -> None:
    following = {str(number): [str(number + 1)] for number in range(10_000)}
    assert cycles(following, following) == []
    following["10000"] = ["0"]
    assert len(cycles(following, following)) == 1


def test_the_map_has_a_row_for_every_trigger() -> None:
    spec = FunctionSpec(
        name="shop.price",
        app="shop",
        triggers=(
            StreamTrigger(streams=("a", "b"), merge="time", start="latest"),
            StreamTrigger(streams=("c",), pattern={"key": ["x"]}),
            CallTrigger(),
        ),
        output="d",
        publishes=("e", "d"),
        batch_size=500,
        batch_window=0.2,
        order="key",
        parallelism=4,
        commit="before",
        retry=Retry(attempts=3, initial_delay=0.5, max_delay=120, max_event_age=3_600),
        on_failure=ParkKey(),
        breaker=Breaker(failures=3, pause=5),
        scaling=Scaling(min=1, max=4),
        summary="Quote.",
    )
    merged, filtered, called = map_rows([shop(spec)])
    assert (merged.streams, merged.trigger) == (("a", "b"), "merge by time, from latest")
    assert (filtered.streams, filtered.trigger) == (("c",), "stream, filtered")
    assert (called.streams, called.trigger, called.group) == ((), "call", "-")
    assert (merged.batch, merged.order) == ("500 in 200ms", "key x4, commits before")
    assert merged.retry == "3x, 500ms..2m within 1h"
    assert (merged.on_failure, merged.breaker) == ("park-key", "after 3, for 5s")
    assert (merged.scaling, merged.outputs) == ("1..4", ("d", "e"))
    assert (merged.version, merged.owner, merged.summary) == ("v1", "team", "Quote.")


@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_table_lines_up(count: int) -> None:
    rows = map_rows([shop(*(function(f"f{'x' * number}", "a") for number in range(count)))])
    head, *lines = map_table(rows).splitlines()
    assert len(lines) == count
    assert all(line[head.index("STREAMS")] == "a" for line in lines)


def test_every_edge_says_how_it_is_known() -> None:
    count = FunctionSpec(
        name="shop.count", app="shop", output="a", publishes=("b",), in_code=("b", "c")
    )
    app = shop(*(stream(name) for name in "abcd"), count)
    observed = {"shop.count": {"a", "c", "d", "_count.http.0"}}
    known = {edge.target: edge.how for edge in graph_of([app], observed).edges}
    assert known == {"a": "declared", "b": "declared", "c": "code", "d": "observed"}
    [row] = map_rows([msgspec.structs.replace(app, functions=(called(count),))], observed)
    assert row.shown_outputs == ["a", "b", "c (in code)", "d (observed)"]
    assert "a, b, c (in code), d (observed)" in map_table([row])


def called(function: FunctionSpec) -> FunctionSpec:
    return msgspec.structs.replace(function, triggers=(CallTrigger(),))


def test_what_code_may_do_warns_of_cycles_and_refuses_nobody() -> None:
    loop = FunctionSpec(
        name="shop.loop", app="shop", triggers=(StreamTrigger(streams=("a",)),), in_code=("a", "x")
    )
    found = {finding.code: finding.severity for finding in check([shop(stream("a"), loop)])}
    assert found == {"cycle": "warning"}


def test_what_holds_runs_back_stands_in_the_map() -> None:
    spec = FunctionSpec(
        name="shop.f",
        app="shop",
        triggers=(CallTrigger(),),
        timeout=90.0,
        concurrency=Concurrency(limit=4, key_limit=1),
        throttle=Throttle(10, per=60.0, per_key=True),
        debounce=Debounce(5.0, longest=60.0),
        singleton=Singleton(),
        breaker=Breaker(failures=3, pause=5),
        batch_per_key=True,
    )
    [row] = map_rows([shop(spec)])
    flow = (
        "concurrency 4, 1 per key; throttle 10 in 1m per key; debounce 5s, 1m at most; "
        "singleton, others skip; a key per batch"
    )
    assert row.flow == flow
    table = map_table([row])
    for each in (flow, "90s", "after 3, for 5s"):
        assert each in table


@pytest.mark.parametrize(
    ("by", "idle", "is_late_kept", "warns"),
    [
        (TumblingWindow("1h"), "4s", False, True),
        (HoppingWindow("1h", "5m"), "10m", False, True),
        (TumblingWindow("1h"), "4s", True, False),
        (TumblingWindow("1h"), "1h", False, False),
        (TumblingWindow("1h"), None, False, False),
        (SessionWindow("1h"), "4s", False, False),
    ],
)
def test_windows_that_a_short_pause_closes_warn_where_later_events_are_dropped(
    by: Windows, idle: str | None, is_late_kept: bool, warns: bool
) -> None:
    app = App("shop")
    sales, hours, late = app.stream("sales"), app.stream("hours"), app.stream("late")

    @app.window(
        sales,
        by,
        output=hours,
        idle=idle,
        late=late if is_late_kept else None,
        combine=lambda one, other: one + other,
    )
    def total(so_far: int | None, event: Event[int]) -> int:
        return (so_far or 0) + event.value

    found = [each for each in check([app.spec()]) if each.code == "idle-drops"]
    assert [each.subject for each in found] == ["shop.total"] * warns
    assert all("`late=`" in each.message for each in found)
