"""The life of an instance: its states, the arrows between them, and why it was ended.

Pure. `instance.py` walks it and `pool.py` reads it.
"""

from __future__ import annotations

import enum
from typing import Protocol, TypeVar

import msgspec

from headrace.model.outcome import Cause

Member = TypeVar("Member", contravariant=True)


class InstanceState(enum.Enum):
    """Where an instance is in its life."""

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
    """Why the host killed it."""

    NONE = "it ended by itself"
    TIMEOUT = "an invocation overran its timeout"
    START = "its start hooks overran their time"
    PROTOCOL = "it broke the protocol"
    CHANNEL = "it closed its channel"
    UNTOLD = "it died, and its zygote did not say of what"
    TAKEN = "the platform took it away"
    ZYGOTE = "its zygote died"
    UNBORN = "it could not be forked"
    MEMORY = "the functions of this node use more memory than they may"
    DRAINED = "its node stops"


class Lost(msgspec.Struct, frozen=True):
    """The run did not come back and nothing is proven against it: run it again, alone.

    Attributes:
        reason: Why.
    """

    reason: str


class NotStarted(msgspec.Struct, frozen=True):
    """The instance ended before it could take up a run: no event is to blame, and none has run.

    Attributes:
        cause: Why, such as what an `init` hook raised.
    """

    cause: Cause


class Owner(Protocol[Member]):
    """The pool, as its instances know it."""

    def freed(self, instance: Member) -> None:
        """It can take another run."""
        ...

    def takes_ahead(self, instance: Member) -> bool:
        """Whether a run is well placed behind the one that it has in hand."""
        ...

    def took(self, seconds: float) -> None:
        """A run took this long."""
        ...

    def started(self, instance: Member) -> None:
        """It has come up."""
        ...

    def leaving(self, instance: Member) -> None:
        """It takes no more runs."""
        ...

    def start_failed(self, cause: Cause) -> None:
        """One ended before it could take up a run."""
        ...

    def gone(self, instance: Member) -> None:
        """It is dead and reaped."""
        ...
