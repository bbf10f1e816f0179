"""Named places at which a test can inject a failure: by killing the process, or by raising.

Disarmed (always, outside tests) a failpoint costs one check of an empty dictionary. `LABELS` holds
all of them, so that a campaign can visit each.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

LABELS: tuple[str, ...] = (
    "append:before-commit",
    "append:after-commit",
    "commit:before-write",
    "commit:after-write",
    "commit:before-fsync",
    "commit:after-fsync",
    "pump:after-read",
    "pump:before-invoke",
    "pump:after-invoke",
    "pump:after-commit",
    "dead-letter:before-commit",
    "claim:before-write",
    "claim:after-write",
    "fork:before",
    "fork:after",
    "checkpoint:before",
    "checkpoint:after",
    "recovery:opened",
    "recovery:claimed",
    "feed:before-append",
    "feed:after-append",
    "feed:after-acknowledge",
    "delay:before-append",
    "outbox:before-publish",
    "outbox:after-publish",
    "lease:before-write",
    "lease:after-write",
)

_armed: dict[str, Callable[[], None]] = {}


def hit(label: str) -> None:
    """Run the action that is armed at this label, if any."""
    # On hot paths: the usual case ends at the empty dictionary.
    if _armed and (action := _armed.get(label)) is not None:
        action()


def arm(label: str, action: Callable[[], None]) -> None:
    """Run `action` whenever `label` is hit."""
    # A misspelt label would never fire, and its test would pass.
    if label not in LABELS:
        raise ValueError(f"no failpoint is called `{label}`")
    _armed[label] = action


def disarm() -> None:
    """Remove every action."""
    _armed.clear()


def kill_at(label: str, passes: int) -> None:
    """Kill this process with SIGKILL at the given hit (from 1) of `label`."""
    left = passes

    def action() -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            # SIGKILL, not `os._exit`: no thread and no handler runs on, as in a real crash.
            os.kill(os.getpid(), signal.SIGKILL)

    arm(label, action)
