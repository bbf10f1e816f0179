"""An app that imports nothing of its own; its functions tell when they began."""

import time
from typing import Any

from headrace import App, Event, Resources, Scaling


def declare(app: App) -> None:
    """Give an app the functions that cold starts and density are measured by."""
    once = Scaling(max=256, max_invocations=1)

    @app.function(scaling=once)
    def first_line(event: Event[Any]) -> int:
        """Tell when the first line ran; a new instance for every call."""
        return time.perf_counter_ns()

    @app.function(scaling=once, resources=Resources(isolation=2))
    def first_line_confined(event: Event[Any]) -> int:
        """The same at the highest level of isolation."""
        return time.perf_counter_ns()

    @app.function(scaling=Scaling(max=256))
    def stay(event: Event[Any]) -> int:
        """Tell when the first line ran; stays busy as long as it is told to."""
        return _stay(event)

    @app.function(scaling=Scaling(max=2))
    def echo(event: Event[Any]) -> Any:
        """Give back what came."""
        return event.value

    @app.function(scaling=Scaling(max=200, keep_warm=0.05, keep_hibernating=3_600))
    def sleeper(event: Event[Any]) -> int:
        """Hibernates soon after it has answered."""
        return _stay(event)


def _stay(event: Event[Any]) -> int:
    began = time.perf_counter_ns()
    if rest_s := event.value.get("rest_s"):
        # A sleep of no time at all would still be a trip through the kernel's timers.
        time.sleep(rest_s)
    return began


app = App("empty")
declare(app)
