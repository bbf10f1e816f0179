"""The page a person looks at: it says what is so, and no text of a user's becomes markup."""

from __future__ import annotations

import re

from headrace.admin.lag import LagRow
from headrace.admin.sources import SourceRow
from headrace.delivery.parked import ParkedKey
from headrace.http.console.graph_svg import picture
from headrace.http.console.overview import Overview
from headrace.http.console.overview import page as sheet_of
from headrace.http.console.page_frame import POLICY, Frame, document
from headrace.model.effects import DeadEvent
from headrace.model.function import AppSpec, FunctionSpec, StreamSpec
from headrace.model.outcome import Cause
from headrace.model.record import Position
from headrace.model.triggers.base import StreamTrigger
from headrace.model.triggers.bus import Forward, Rule
from headrace.model.triggers.files import Silence
from headrace.model.triggers.schedules import Every
from headrace.telemetry.history import Counters, LogLine, RunRecord
from headrace.topology.graph import Edge, Graph, graph_of

EVIL = "<script>alert(1)</script>"
FRAME = Frame(version="1", ready=True, reason="", apps=("shop",))
SHOP = AppSpec(
    name="shop",
    owner="team",
    streams=(StreamSpec(name="orders", owner="shop"), StreamSpec(name="priced", owner="shop")),
    functions=(
        FunctionSpec(
            name="shop.price",
            app="shop",
            triggers=(StreamTrigger(streams=("orders",)),),
            summary=EVIL,
        ),
    ),
)


def overview(**more: object) -> Overview:
    counters = Counters()
    counters.outputs.add("priced")
    counters.outcomes["failed"] = 3
    fields: dict[str, object] = {
        "apps": [SHOP],
        "ends": {"orders": 9, "priced": 1_234},
        "lag": [LagRow("shop.price", "orders", 0, 0, 9, 4, 5, 1, 2.5, 1, "retrying")],
        "sources": [SourceRow("shop.poll", 0, "custom", "_shop.poll.custom.0", "failing", EVIL, 3)],
        "counters": {"shop.price": counters},
        "instances": [],
        "dead": [
            DeadEvent(
                "shop.price", Position("orders", 0, 3), b"", Cause("ValueError", EVIL), 5, 0, 0
            )
        ],
        "parked": [ParkedKey("shop.price", "orders", 0, EVIL, "waiting", 2, 0, "broken")],
        "rates": {("shop.price", "orders"): 3.5},
        "failed": [RunRecord("shop.price", "k", "i", 1, 0.1, 35, 1, "failed", "orders/0/3", EVIL)],
        "logs": [LogLine(1, 0, "shop.price", "i", "k", "INFO", EVIL)],
    } | more
    return Overview(**fields)  # type: ignore[arg-type] # by name


def page(shown: Overview, frame: Frame = FRAME) -> str:
    return document(frame, sheet_of(shown))


def test_what_waits_for_a_person_is_shown_with_the_command_that_helps() -> None:
    html = page(overview())
    assert "headrace parked redrive shop.price" in html
    assert "headrace dead redrive shop.price orders/0/3" in html
    assert 'href="/console/dead/shop.price/orders/0/3"' in html
    assert ">retrying<" in html
    assert ">1,234 events<" in html
    assert ">keys are parked<" in html


def test_a_line_says_how_much_flows_and_what_waits_at_its_end() -> None:
    html = page(overview())
    assert re.search(r'class="flow">3.5/s</text><text [^>]+ class="flow bad">5 behind<', html)


def test_what_a_function_is_set_off_by_stands_beneath_its_name() -> None:
    function = FunctionSpec(name="shop.tick", app="shop", triggers=(Every(30.0),))
    html = page(overview(apps=[AppSpec(name="shop", functions=(function,))], lag=[], sources=[]))
    assert 'class="note">every 30s</text>' in html


def test_a_topology_that_is_too_large_to_read_is_counted_instead() -> None:
    functions = tuple(
        FunctionSpec(name=f"shop.f{at}", app="shop", triggers=(Every(30.0),)) for at in range(400)
    )
    html = page(overview(apps=[AppSpec(name="shop", functions=functions)], lag=[]))
    assert "<svg" not in html
    assert "400 functions and 0 streams are too many to draw" in html
    assert html.count('<td class="wide"><a href="/console/functions/shop.f') == 200
    assert "and 200 more: <code>headrace map</code>" in html


def test_the_platforms_own_routers_are_no_part_of_the_picture() -> None:
    router = FunctionSpec(
        name="_bus.rules.orders", app="_bus", triggers=(StreamTrigger(streams=("orders",)),)
    )
    html = page(overview(apps=[SHOP, AppSpec(name="_bus", functions=(router,))], lag=[]))
    assert "<title>_bus.rules.orders</title>" not in html


def test_a_trigger_that_fails_is_shown_with_its_error() -> None:
    html = page(overview())
    assert "Triggers that fail" in html
    assert "shop.poll" in html
    assert "Triggers that fail" not in page(overview(sources=[]))


def test_no_text_of_a_user_becomes_markup() -> None:
    html = page(overview(), Frame(version="1", ready=False, reason=EVIL, apps=(EVIL,)))
    assert EVIL not in html
    assert "&lt;script&gt;" in html
    assert "<script" not in html


def test_the_policy_allows_the_pages_own_style_and_nothing_else() -> None:
    assert "default-src 'none'" in POLICY
    assert len(re.findall(r"<style>", page(overview()))) == 1
    assert "style=" not in page(overview())


def test_an_empty_node_has_a_page_too() -> None:
    html = page(
        overview(
            apps=[],
            lag=[],
            counters={},
            dead=[],
            parked=[],
            rates={},
            failed=[],
            logs=[],
        ),
        Frame(version="1", ready=True, reason="", apps=()),
    )
    assert "no app" in html
    assert "headrace dev app.py" in html
    assert "<svg" not in html


def test_a_node_stands_right_of_whatever_leads_to_it() -> None:
    graph = graph_of([SHOP])
    drawn = Graph(
        graph.streams, graph.functions, (*graph.edges, Edge("shop.price", "priced", "publishes"))
    )
    places = {
        name: int(x)
        for name, x in re.findall(
            r"<title>([^<]+)</title><rect x=\"(\d+)\"", "".join(picture(drawn, {}))
        )
    }
    assert places["orders"] < places["shop.price"] < places["priced"]


def test_a_loop_is_drawn_dashed_and_ends() -> None:
    graph = graph_of([SHOP])
    looped = Graph(
        graph.streams, graph.functions, (*graph.edges, Edge("shop.price", "orders", "publishes"))
    )
    assert "".join(picture(looped, {})).count('class="back"') >= 1


def test_a_forward_is_drawn_as_a_node_and_watching_dotted() -> None:
    rule = Rule({"source": ["a"]}, streams=("orders",))
    app = AppSpec(
        name="shop",
        streams=SHOP.streams,
        functions=(
            FunctionSpec(name="shop.quiet", app="shop", triggers=(Silence("orders", after=60.0),)),
        ),
        forwards=(Forward("shop.keep", rule, "priced"),),
    )
    html = page(overview(apps=[app], lag=[], counters={}))
    assert "<title>shop.keep</title>" in html
    assert html.count('class="watch"') == 1
