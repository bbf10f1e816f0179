"""Input transformers: our own cases, and where at hand those recorded on the real service."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from headrace.bus.transform import transform_of
from headrace.model.errors import Misuse
from headrace.model.triggers.bus import Rule

EVENT = {
    "id": "e1",
    "source": "shop",
    "detail-type": "Order Placed",
    "time": "2026-01-01T00:00:00Z",
    "detail": {"id": 7, "note": 'say "hi"', "items": [{"sku": "a"}], "a.b": 1, "paid": True},
    "odd": {"at": "C:\\", "said": 'say "hi"\\'},
}
TIME = "2026-01-02T00:00:00Z"


def changed(**settings: Any) -> Any:
    transform = transform_of(Rule({"source": ["shop"]}, **settings))
    assert transform is not None
    return json.loads(transform(EVENT, "shop.rule", TIME))


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("$", EVENT),
        ("$.detail.id", 7),
        ("$.detail-type", "Order Placed"),
        ("$.detail.items[0].sku", "a"),
        ("$.detail['a.b']", 1),
        ('$["detail"]["paid"]', True),
        ("$.detail.items[3]", None),
        ("$.source.deeper", None),
    ],
)
def test_a_path_hands_over_what_stands_there(path: str, found: Any) -> None:
    assert changed(path=path) == found


@pytest.mark.parametrize(
    ("template", "found"),
    [
        ('{"order": <id>, "text": "no. <id>, <note>"}', {"order": 7, "text": 'no. 7, say "hi"'}),
        ('"<items> of <gone>"', "[{sku:a}] of "),
        ("[<gone>, <items>]", [None, [{"sku": "a"}]]),
        ('"a \\" <id>"', 'a " 7'),
        ('"in <odd>, end"', "in {at:C:\\,said:say hi\\}, end"),
        ('{"rule": <aws.events.rule-name>}', {"rule": "shop.rule"}),
        ('{"at": "<aws.events.event.ingestion-time>"}', {"at": TIME}),
        ('{"plain": "text"}', {"plain": "text"}),
    ],
)
def test_a_template_is_filled(template: str, found: Any) -> None:
    paths = {
        "id": "$.detail.id",
        "note": "$.detail.note",
        "items": "$.detail.items",
        "gone": "$.detail.gone",
        "odd": "$.odd",
    }
    assert changed(template=template, paths=paths) == found


def test_without_either_the_event_stays_as_it_was() -> None:
    assert transform_of(Rule({"source": ["shop"]})) is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"path": "detail"}, "must begin with"),
        ({"path": "$.detail[*]"}, "cannot be read from"),
        ({"template": '{"a": <b>}'}, "which `paths=` does not"),
        ({"template": "plain words"}, "is not JSON"),
        ({"template": "{}", "path": "$"}, "use one"),
        ({"paths": {"a": "$.b"}}, "which is missing"),
    ],
)
def test_what_cannot_be_read_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(Misuse, match=said):
        transform_of(Rule({"source": ["shop"]}, **settings))


def test_the_recorded_cases_are_met() -> None:
    folder = os.environ.get("RECORDED_CASES", "")
    file = Path(folder) / "events" / "input_transform_cases.json"
    if not folder or not file.exists():
        pytest.skip("RECORDED_CASES names no folder of recorded cases")
    recorded = json.loads(file.read_text())["cases"]
    assert recorded
    for case in recorded:
        event = {**case["event"], "time": "date"}
        given = case["transform"]
        transform = transform_of(
            Rule(
                {"source": ["x"]},
                path=given.get("InputPath"),
                paths=given.get("InputPathsMap", {}) if "InputTemplate" in given else {},
                template=given.get("InputTemplate"),
            )
        )
        assert transform is not None
        body = transform(event, "rule", "<ingestion-time>").decode()
        wanted = case["output"]
        if isinstance(wanted, dict):
            found = json.loads(body)
            _same_id(found, wanted)
            assert found == wanted, case["id"]
        else:
            assert body == wanted, case["id"]


def _same_id(found: Any, wanted: Any) -> None:
    """The record hides ids behind different names."""
    for name in ("originalEvent", "originalEventJson"):
        if name in wanted:
            wanted[name]["id"] = found[name]["id"]
