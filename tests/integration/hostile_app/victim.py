"""The app that the hostile one is after."""

from __future__ import annotations

from typing import Any

from headrace import App, Context, Event

app = App("victim", secrets=["VICTIMS_CARD"])
inner = app.stream("inner", private=True)
opened = app.stream("open")


@app.function()
def keep(event: Event[Any], context: Context) -> None:
    """Keep a secret."""
    (app.folder / "card").write_text("4000")
    context.state.put("card", event.value)
