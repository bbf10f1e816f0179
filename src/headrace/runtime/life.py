"""The life of an instance as a value: its states, the arrows between them, and why it was ended.

Pure. `instance.py` walks it and `pool.py` reads it.
"""

from __future__ import annotations

import enum

import msgspec


class State(enum.Enum):
    """Where an instance is in its life."""

    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    HIBERNATING = "hibernating"
    DRAINING = "draining"
    GONE = "gone"


TRANSITIONS: dict[State, frozenset[State]] = {
    State.STARTING: frozenset({State.IDLE, State.BUSY, State.DRAINING, State.GONE}),
    State.IDLE: frozenset({State.BUSY, State.HIBERNATING, State.DRAINING, State.GONE}),
    State.BUSY: frozenset({State.IDLE, State.DRAINING, State.GONE}),
    State.HIBERNATING: frozenset({State.BUSY, State.DRAINING, State.GONE}),
    State.DRAINING: frozenset({State.GONE}),
    State.GONE: frozenset(),
}


class Doom(enum.Enum):
    """Why the host killed it."""

    NONE = "it ended by itself"
    TIMEOUT = "an invocation overran its timeout"
    START = "its start hooks overran their time"
    PROTOCOL = "it broke the protocol"
    CHANNEL = "it closed its channel"
    TAKEN = "the platform took it away"
    ZYGOTE = "its zygote died"
    UNBORN = "it could not be forked"
    MEMORY = "the functions of this node use more memory than they may"


class Lost(msgspec.Struct, frozen=True):
    """The run did not come back and nothing is proven against it: run it again, alone."""

    reason: str
