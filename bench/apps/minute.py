"""A function with a thousand schedules, each due once a minute, evenly over it."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

from headrace import App, At, Event, Scaling

app = App("minute")
COUNT = 1_000
PERIOD_S = 60
handled = app.stream("handled")
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


@app.function(
    *(
        At(BEGIN + timedelta(seconds=PERIOD_S * number / COUNT), every=PERIOD_S)
        for number in range(COUNT)
    ),
    name="note",
    output=handled,
    scaling=Scaling(max=2),
)
def note(event: Event[Any]) -> dict[str, float]:
    """Say for when it was called, and when it was."""
    now = time.time()
    return {"due": event.timestamp, "began": now}
