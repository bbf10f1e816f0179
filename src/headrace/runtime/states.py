"""States of an instance, the transitions between them, and the reasons of a kill.

Pure. `process/instance.py` changes the state and `pool.py` reads it.
"""

from __future__ import annotations

import enum
from typing import Protocol, TypeVar

import msgspec

from headrace.model.outcome import Cause

Member = TypeVar("Member", contravariant=True)


class InstanceState(enum.Enum):
    """State of an instance."""

    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    HIBERNATING = "hibernating"
    DRAINING = "draining"
    GONE = "gone"


TRANSITIONS: dict[InstanceState, frozenset[InstanceState]] = {
    InstanceState.STARTING: frozenset(
        {InstanceState.IDLE, InstanceState.BUSY, InstanceState.DRAINING, InstanceState.GONE}
    ),
    InstanceState.IDLE: frozenset(
        {InstanceState.BUSY, InstanceState.HIBERNATING, InstanceState.DRAINING, InstanceState.GONE}
    ),
    InstanceState.BUSY: frozenset({InstanceState.IDLE, InstanceState.DRAINING, InstanceState.GONE}),
    InstanceState.HIBERNATING: frozenset(
        {InstanceState.BUSY, InstanceState.DRAINING, InstanceState.GONE}
    ),
    InstanceState.DRAINING: frozenset({InstanceState.GONE}),
    InstanceState.GONE: frozenset(),
}


class KillReason(enum.Enum):
    """Reason for which the host killed an instance."""

    NONE = "it ended by itself"
    TIMEOUT = "an invocation overran its timeout"
    START = "its start hooks overran their time"
    PROTOCOL = "it broke the protocol"
    CHANNEL = "it closed its channel"
    UNREPORTED = "it died, and its zygote did not report why"
    TAKEN = "the platform took it away"
    ZYGOTE = "its zygote died"
    NOT_FORKED = "it could not be forked"
    MEMORY = "the functions of this node use more memory than they may"
    DRAINED = "its node stops"


class Lost(msgspec.Struct, frozen=True):
    """The run was lost without proof that it caused the loss: run it again, alone.

    Attributes:
        reason: Why.
    """

    reason: str


class NotStarted(msgspec.Struct, frozen=True):
    """The instance ended before it could accept a run: no event is to blame, and none has run.

    Attributes:
        cause: Why, such as what an `init` hook raised.
    """

    cause: Cause


class Owner(Protocol[Member]):
    """The pool, as owner of its instances."""

    def freed(self, instance: Member) -> None:
        """Use an instance that can take another run."""
        ...

    def takes_ahead(self, instance: Member) -> bool:
        """Return whether a run should be sent ahead behind the instance's current one."""
        ...

    def ran(self, seconds: float) -> None:
        """Take note of a run's time, in seconds."""
        ...

    def started(self, instance: Member) -> None:
        """Take note that an instance has started."""
        ...

    def leaving(self, instance: Member) -> None:
        """Take note that an instance accepts no more runs."""
        ...

    def start_failed(self, cause: Cause) -> None:
        """Take note that an instance ended before it could accept a run."""
        ...

    def gone(self, instance: Member) -> None:
        """Take note that an instance is dead and reaped."""
        ...
