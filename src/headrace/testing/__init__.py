"""For authors' tests: handlers called by hand, and a whole node on virtual time.

`context`, `event` and `batch` make what a handler is given (`testing.direct`). `World` runs an app on
the real delivery engine (`testing.world`); it is loaded when first asked for, because it needs all of
the platform.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from headrace.testing.direct import Published, batch, context, event

__all__ = ["Published", "World", "batch", "context", "event"]


def __getattr__(name: str) -> Any:
    if name == "World":
        return import_module("headrace.testing.world").World
    raise AttributeError(f"`headrace.testing` has no `{name}`")
