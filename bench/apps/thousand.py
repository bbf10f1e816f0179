"""A thousand functions, each listening to a stream of its own on which nothing happens; and one busy."""

from typing import Any

from headrace import App, Batch

app = App("thousand")
COUNT = 1_000


def nothing(events: Batch[Any]) -> None:
    """Do nothing."""


for number in range(COUNT):
    app.function(app.stream(f"quiet_{number}"), name=f"quiet_{number}")(nothing)

busy = app.stream("busy")


@app.function(busy, name="busy", batch_size=1_000)
def touch(events: Batch[Any]) -> None:
    """Read one field of every event."""
    large = 0
    for event in events:
        large += event.value["amount"] > 100
