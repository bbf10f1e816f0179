"""For authors' tests: handlers called by hand, and a whole node on virtual time.

`context`, `event` and `batch` make what a handler is given (`testing.handler_calls`), `signed` a webhook's
headers (`testing.signed_webhooks`). `World` runs an app on
the real delivery engine (`testing.world`), `serving` a node in a process of its own, which a test
asks over HTTP (`testing.served`). Both are loaded when first asked for, `World` because it needs all
of the platform.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from headrace.testing.handler_calls import Published, batch, context, event
from headrace.testing.signed_webhooks import signed

if TYPE_CHECKING:
    from headrace.testing.served import serving
    from headrace.testing.world import World

__all__ = ["Published", "World", "batch", "context", "event", "serving", "signed"]

_LATER = {"World": "headrace.testing.world", "serving": "headrace.testing.served"}

if not TYPE_CHECKING:  # A checker that sees `__getattr__` would accept every misspelt name.

    def __getattr__(name: str) -> object:
        if name in _LATER:
            return getattr(import_module(_LATER[name]), name)
        raise AttributeError(f"`headrace.testing` has no `{name}`")
