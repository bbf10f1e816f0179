"""Several apps on one real node: each reads what the others make public, in whatever order they come."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.integration.gateway_nodes import start, wait_for

from headrace.testing.served import ask

ASKS = """
from __future__ import annotations

from typing import Any

from headrace import *

app = App("asks")
asked = app.stream("asked")
answered = app.external("answered")


@app.function(answered)
def hear(event: Event[Any], context: Context) -> None:
    context.state.put("heard", event.value)
"""
ANSWERS = """
from __future__ import annotations

from typing import Any

from headrace import *

app = App("answers")
answered = app.stream("answered")
asked = app.external("asked")


@app.function(asked, output=answered)
def answer(event: Event[Any]) -> int:
    return event.value + 1
"""


@pytest.mark.parametrize("order", [("asks.py", "answers.py"), ("answers.py", "asks.py")])
def test_two_apps_read_each_other_in_either_order(tmp_path: Path, order: tuple[str, ...]) -> None:
    for each in (tmp_path, *tmp_path.parents[:2]):
        each.chmod(each.stat().st_mode | 0o755)
    (tmp_path / "asks.py").write_text(ASKS)
    (tmp_path / "answers.py").write_text(ANSWERS)
    process, url = start(tmp_path, *order)
    try:
        ask("POST", f"{url}/-/v1/streams/asked", 41)
        place = f"{url}/-/v1/state/asks/asks.hear/heard"
        wait_for(lambda: ask("GET", place).status == 200)
        assert ask("GET", place).body["value"] == 42
    finally:
        process.kill()
        process.wait()


def test_two_apps_that_both_declare_a_stream_are_refused(tmp_path: Path) -> None:
    for each in (tmp_path, *tmp_path.parents[:2]):
        each.chmod(each.stat().st_mode | 0o755)
    (tmp_path / "asks.py").write_text(ASKS)
    (tmp_path / "other.py").write_text(ASKS.replace('App("asks")', 'App("other")'))
    with pytest.raises(AssertionError, match="both declare the stream `asked`"):
        start(tmp_path, "asks.py", "other.py")
