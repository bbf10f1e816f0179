"""Windows over event time: visitors a minute, and how long each of them stayed."""

from __future__ import annotations

from headrace import App, Event
from headrace.windows import SessionWindow, TumblingWindow

app = App("visits", owner="web")
clicks = app.stream("clicks", partitions=2)
late = app.stream("late_clicks")
minutes = app.stream("minutes")
stays = app.stream("stays")


@app.window(clicks, TumblingWindow("1m"), lateness="10s", idle="2m", late=late, output=minutes)
def per_minute(count: int | None, event: Event[str]) -> int:
    """How many clicks a page had in each minute."""
    return (count or 0) + 1


def both(one: list[str], other: list[str]) -> list[str]:
    """The pages of two sessions that turn out to be one."""
    return one + other


@app.window(clicks, SessionWindow("30m"), lateness="10s", output=stays, combine=both)
def stay(pages: list[str] | None, event: Event[str]) -> list[str]:
    """Which pages were seen without half an hour of silence between them."""
    return [*(pages or ()), event.value]
