"""A function with a thousand schedules, all of them due in the same instants."""

import time
from typing import Any

from headrace import App, Cron, Event, Scaling

app = App("instant")
COUNT = 1_000
PERIOD_S = 3
handled = app.stream("handled")


@app.function(
    *(Cron(f"*/{PERIOD_S} * * * * *") for _ in range(COUNT)),
    name="note",
    output=handled,
    scaling=Scaling(max=2),
)
def note(event: Event[Any]) -> dict[str, float]:
    """Say for when it was called, and when it was."""
    now = time.time()
    return {"due": event.timestamp, "began": now}
