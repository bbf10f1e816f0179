"""Pictures to be scaled: some by a function, some by a program elsewhere, reminders for later."""

from typing import Any

from headrace import App, Context, Event

app = App("pictures", owner="media")
jobs = app.queue("jobs", visibility="20s", max_receives=3)
prints = app.queue("prints", visibility="2m", fifo=True)
reminders = app.queue("reminders", delay="1h")
scaled = app.stream("scaled")


@app.function(jobs, output=scaled)
def scale(event: Event[dict[str, Any]], context: Context) -> dict[str, Any]:
    """Scale a picture; a paid one goes ahead. Its print is for a program at the printer."""
    if event.value["width"] <= 0:
        raise ValueError("a picture has a width")
    context.publish(prints, event.value, key=event.value["owner"])
    context.publish(reminders, {"rate": event.value["name"]})
    return {"name": event.value["name"], "attempt": context.attempt}
