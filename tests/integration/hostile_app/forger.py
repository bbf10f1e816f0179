"""An app whose description says of its function, or of its stream, what `change.json` beside it has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from headrace import App, Event

app = App("forger")
made = app.stream("made")
true = app.spec


@app.function()
def peep(event: Event[Any]) -> None:
    """Nothing."""


def forged(version: str = "") -> Any:
    """What is not so."""
    said = true(version)
    [function], [stream] = said.functions, said.streams
    change = json.loads((Path(__file__).parent / "change.json").read_text())
    function = msgspec.structs.replace(function, **change.get("function", {}))
    stream = msgspec.structs.replace(stream, **change.get("stream", {}))
    return msgspec.structs.replace(said, functions=(function,), streams=(stream,))


app.spec = forged  # type: ignore[method-assign]
