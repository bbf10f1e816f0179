"""The port to a foreign system: connect, receive, acknowledge; one driver per system.

A driver knows one protocol and decides nothing. It gives messages with the name the system will
call them by again, or with the place they have in a log; `feed` appends them, and only then has the
driver acknowledge them. It keeps no more than `in_flight` messages in memory, never reconnects by
itself (its source is restarted after a growing pause), and raises our errors, not its library's.

A third party's driver is a callable in the entry point group `headrace.sources`: it takes the
trigger's settings (a dict) and the node's `DriverContext`, and returns a `ForeignSource`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar
from urllib.parse import urlsplit

from headrace.environment.clock import Clock
from headrace.environment.randomness import Entropy
from headrace.model.errors import Misuse
from headrace.model.event import Event

Receipt = TypeVar("Receipt")


@dataclass(frozen=True, slots=True)
class ForeignMessage(Generic[Receipt]):
    """One message as a driver hands it over.

    Attributes:
        event: What it says. Give it an `id` only where no other message can ever have the same;
            the log drops an id it has seen within the dedupe window.
        receipt: What `acknowledge` needs.
        mark: The name by which the system will deliver this message again; empty where it
            has none, or where `place` suffices.
        repeated: Whether it may have been delivered before. False keeps a mark that the system
            uses again for another message from hiding that one.
        place: In a log, which part (partition, shard) it stands in and how to go on after it.
    """

    event: Event
    receipt: Receipt
    mark: str = ""
    repeated: bool = True
    place: tuple[str, str] | None = None


class ForeignSource(Protocol[Receipt]):
    """A connection to one queue, topic or stream. Used by one task; connected again after a failure."""

    async def connect(self, places: Mapping[str, str]) -> Mapping[str, str]:
        """Connect, going on after `places` (empty: the first time, or the system keeps them).

        Returns where it will go on, as far as that must be remembered from now on.

        Raises:
            Misuse: It can never work as configured: access is refused, a setting is wrong.
            Unavailable: It cannot be reached now, or what it shall read is not there yet.
        """
        ...

    async def receive(self, limit: int) -> Sequence[ForeignMessage[Receipt]]:
        """The next messages, at most `limit`, in order; none after a while of nothing new.

        Raises:
            Unavailable: The connection is lost.
        """
        ...

    async def acknowledge(self, messages: Sequence[ForeignMessage[Receipt]]) -> None:
        """These are on our disk. Called once for each, in the order they were received.

        Raises:
            Unavailable: The connection is lost; those not acknowledged may be delivered again.
        """
        ...

    async def close(self) -> None:
        """Let go, acknowledging nothing; safe to call twice and when not connected."""
        ...


@dataclass(frozen=True)
class DriverContext:
    """The parts of the node that a driver may use.

    Attributes:
        name: The function's name in letters, digits, `_` and `-`: for groups and sessions.
        clock: The only source of time.
        entropy: The only source of chance.
    """

    name: str
    clock: Clock
    entropy: Entropy


def lacking(extra: str, error: ImportError) -> Misuse:
    """The error for a driver whose library is not installed."""
    return Misuse(
        f"the library for `{extra}` is not installed ({error.name or error}); "
        f'run `pip install "headrace[{extra}]"`'
    )


def address_of(url: str) -> str:
    """An address fit to be shown: without user and password."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}" if host else f"{parts.scheme}://..."
