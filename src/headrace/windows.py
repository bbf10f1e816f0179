"""Windows over a stream's events: the kinds that `app.window` takes, and what a closed one holds."""

from headrace.sdk.windows import ClosedWindow, HoppingWindow, SessionWindow, TumblingWindow

__all__ = [
    "ClosedWindow",
    "HoppingWindow",
    "SessionWindow",
    "TumblingWindow",
]
