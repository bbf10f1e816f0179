"""Routes as callers meet them, in a `World`: what is taken, and what the handler gets."""

from __future__ import annotations

import pytest

from headrace import App, Event, Http
from headrace.testing import World

app = App("shop")


@app.function(Http("POST", "/raw"))
def raw(event: Event[bytes]) -> str:
    return repr(event.value)


@app.function(Http("POST", "/text"))
def text(event: Event[str]) -> str:
    return repr(event.value)


@pytest.mark.parametrize(("path", "seen"), [("/raw", "b''"), ("/text", "''")])
def test_an_empty_body_of_bytes_or_text_is_empty(path: str, seen: str) -> None:
    with World(app) as world:
        answer = world.ask("POST", path, b"")
        assert (answer.status, answer.body) == (200, seen)
