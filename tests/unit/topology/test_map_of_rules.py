"""Rules, forwards and row changes in the function-trigger map."""

from __future__ import annotations

from typing import Any

from headrace import App
from headrace.bus import HttpTarget, Rule
from headrace.sources import Debezium, KafkaTopic
from headrace.topology.graph import graph_of
from headrace.topology.map import map_rows


def desk() -> App:
    app = App("desk")
    bus = app.bus("events")
    rule = Rule({"detail": {"n": [{"numeric": [">", 1]}]}}, bus=bus, path="$.detail")
    app.forward(rule, to=app.stream("kept"), name="keep")
    app.forward(rule, to=HttpTarget("https://example.com/in"), name="send")

    @app.function(Rule({"source": ["x" * 100]}, streams=["kept", "events"]))
    def take(event: Any) -> None: ...

    return app


def test_the_map_shows_what_rules_watch_and_where_forwards_lead() -> None:
    take, keep, send = map_rows([desk().spec()])
    assert take.streams == ("kept", "events")
    assert take.trigger.startswith('rule {"source":["xxx')
    assert take.trigger.endswith("...")
    assert keep.streams == send.streams == ("events",)
    assert keep.trigger == 'rule {"detail":{"n":[{"numeric":[">",1]}]}}, rewritten'
    assert (keep.function, keep.outputs) == ("desk.keep", ("kept",))
    assert (send.function, send.outputs) == ("desk.send", ("https://example.com/in",))


def test_a_rule_is_an_edge_from_each_stream_it_watches_and_on_to_where_it_forwards() -> None:
    edges = graph_of([desk().spec()]).edges
    assert [(edge.source, edge.target) for edge in edges] == [
        ("desk.keep", "kept"),
        ("events", "desk.keep"),
        ("events", "desk.send"),
        ("events", "desk.take"),
        ("kept", "desk.take"),
    ]


def test_the_map_says_where_records_are_opened_as_row_changes() -> None:
    app = App("desk")

    @app.function(
        app.stream("captured").read(changes=Debezium()), KafkaTopic("orders", changes=Debezium())
    )
    def take(event: Any) -> None: ...

    first, second = (row.trigger for row in map_rows([app.spec()]))
    assert {first, second} == {"stream, debezium changes", "kafka orders, debezium changes"}
