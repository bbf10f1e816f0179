"""Overrides must fit the declarations of the author, or they are refused, never left out."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.model.errors import Misuse
from headrace.model.flow_control import Debounce, Singleton
from headrace.model.function import FunctionSpec
from headrace.model.triggers.base import StreamTrigger
from headrace.node.overrides import Override, apply_overrides


def overridden(values: dict[str, Any], **author: Any) -> FunctionSpec:
    spec = FunctionSpec(name="shop.f", app="shop", **author)
    return apply_overrides(spec, [Override("shop.f", values, "headrace.toml:3")])


MERGED = (StreamTrigger(streams=("a", "b"), merge="time"),)


@pytest.mark.parametrize(
    ("values", "author", "says"),
    [
        ({"parallelism": 8}, {}, "its order is `partition`"),
        ({"debounce": {"seconds": 1}}, {}, "its order is `partition`"),
        (
            {"order": "partition"},
            {"order": "key", "singleton": Singleton()},
            "its order is `partition`",
        ),
        ({"order": "none"}, {"triggers": MERGED}, "merges streams into one order"),
        ({"order": "key", "parallelism": 2}, {"triggers": MERGED}, "merges streams"),
        ({"commit": "before"}, {"order": "key", "debounce": Debounce(1)}, "leave out `commit"),
    ],
)
def test_what_cannot_hold_together_is_refused_by_file_and_line(
    values: dict[str, Any], author: dict[str, Any], says: str
) -> None:
    with pytest.raises(Misuse, match=rf"^headrace\.toml:3: .*{says}"):
        overridden(values, **author)


def test_what_holds_together_is_taken() -> None:
    assert overridden({"parallelism": 8}, order="key").parallelism == 8
    assert overridden({"parallelism": 8, "order": "key"}).works_in_lanes
    assert overridden({"batch_size": 5}, triggers=MERGED).batch_size == 5
    assert not overridden({"order": "partition", "parallelism": 1}, order="key").works_in_lanes
