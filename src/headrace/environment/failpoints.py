"""Named places at which a test can inject a failure: by killing the process, or by raising.

Disarmed (always, outside tests) a failpoint costs one look at an empty dictionary. Labels stand in
`LABELS`, so that a campaign can visit every one of them.
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
    """Pass the named place."""
    if _armed and (action := _armed.get(label)) is not None:
        action()


def arm(label: str, action: Callable[[], None]) -> None:
    """Run `action` at every pass of `label`."""
    if label not in LABELS:
        raise ValueError(f"no failpoint is called `{label}`")
    _armed[label] = action


def disarm() -> None:
    """Take every failpoint away."""
    _armed.clear()


def kill_at(label: str, passes: int) -> None:
    """Kill this process with SIGKILL at the given pass (from 1) of `label`."""
    left = passes

    def action() -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    arm(label, action)
