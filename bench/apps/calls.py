"""A function that is called over HTTP, by its name and at a route, and gives back what came."""

from typing import Any

from headrace import App, Event, Http, Scaling

app = App("calls")


@app.function(Http("POST", "/echo"), scaling=Scaling(max=2))
def echo(event: Event[Any]) -> Any:
    """Give back what came."""
    return event.value
