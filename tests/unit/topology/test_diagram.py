"""The topology in the languages of drawing tools."""

from __future__ import annotations

from headrace.model.function import AppSpec, FunctionSpec, StreamSpec
from headrace.model.triggers.base import StreamTrigger
from headrace.model.triggers.files import Silence
from headrace.model.triggers.schedules import Cron
from headrace.topology.diagram import graphviz, mermaid
from headrace.topology.map import map_rows

ROWS = map_rows(
    [
        AppSpec(
            name="shop",
            streams=(StreamSpec(name="orders"), StreamSpec(name="totals")),
            functions=(
                FunctionSpec(
                    name="shop.count",
                    app="shop",
                    output="totals",
                    triggers=(StreamTrigger(streams=("orders",)),),
                ),
                FunctionSpec(
                    name="shop.quiet", app="shop", triggers=(Silence("orders", after=60.0),)
                ),
                FunctionSpec(name="shop.tidy", app="shop", triggers=(Cron("0 7 * * *"),)),
            ),
        )
    ]
)


def test_a_flowchart_has_every_stream_function_and_line() -> None:
    assert (
        mermaid(ROWS)
        == """\
flowchart LR
  n0(["orders"])
  n1["shop.count"]
  n2(["totals"])
  n3["shop.quiet<br/>silence orders, 1m"]
  n4["shop.tidy<br/>cron 0 7 * * *"]
  n0 --> n1
  n1 --> n2
  n0 -.-> n3"""
    )


def test_a_digraph_has_every_stream_function_and_line() -> None:
    assert (
        graphviz(ROWS)
        == """\
digraph headrace {
  rankdir=LR;
  "orders" [shape=oval];
  "shop.count" [shape=box, label="shop.count"];
  "totals" [shape=oval];
  "shop.quiet" [shape=box, label="shop.quiet\\nsilence orders, 1m"];
  "shop.tidy" [shape=box, label="shop.tidy\\ncron 0 7 * * *"];
  "orders" -> "shop.count";
  "shop.count" -> "totals";
  "orders" -> "shop.quiet" [style=dotted];
}"""
    )


def test_nothing_of_an_authors_text_is_the_tools_own_language() -> None:
    wild = Cron("0 7 * * *", tz='"]<b>#')
    function = FunctionSpec(name="shop.f", app="shop", triggers=(wild,))
    drawn = mermaid(map_rows([AppSpec(name="shop", functions=(function,))]))
    assert 'shop.f<br/>cron 0 7 * * *, tz=#quot;]#lt;b#gt;#35;"]' in drawn
