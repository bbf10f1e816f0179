"""A `Consumer` in the instance: fetches events from the host, and commits through the host.

In: the partitions of a run, and a host that supplies their events. Out: events as the handler's stream declares
them, and effects as one `Returned` for each commit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol, runtime_checkable

from headrace.model.errors import Misuse
from headrace.model.invocation import ConsumerInvocation, Invocation
from headrace.model.outcome import Returned
from headrace.model.record import Chunk
from headrace.runtime.child.recorder import Recorder
from headrace.sdk.batch import Batch
from headrace.sdk.event import Event, open_chunk

MAX_FETCH: Final = 10_000


@runtime_checkable
class Supply(Protocol):
    """A host that supplies events; each call blocks until the host has answered."""

    def fetch(self, invocation: Invocation, events: int) -> tuple[list[Chunk], int]:
        """Return the run's next events (none: the run should end), and how many were not fetched."""
        ...

    def land(self, invocation: Invocation, returned: Returned) -> None:
        """Commit the events fetched, and the effects noted, since the last commit."""
        ...


class ConsumerSession:
    """One run's consumer; implements `sdk.consumer.Consumer`."""

    def __init__(
        self,
        invocation: ConsumerInvocation,
        recorder: Recorder,
        host: Supply,
        decode: Callable[[bytes], Any],
    ) -> None:
        self._invocation = invocation
        self._recorder = recorder
        self._host = host
        self._decode = decode
        self._positions = {held.partition: held.offset for held in invocation.held}

    def fetch(self, events: int = 500) -> Batch[Any]:
        """Return the next events; none if the run should end."""
        if not 1 <= events <= MAX_FETCH:
            raise Misuse(f"`fetch({events!r})` is out of range; use 1 to {MAX_FETCH:,} events")
        self._recorder.enter("`consumer.fetch`")
        try:
            return self._fetch(events)
        finally:
            self._recorder.lock.release()

    def _fetch(self, events: int) -> Batch[Any]:
        known = self._recorder.events
        opened: list[Event[Any]] = []
        for chunk in self._host.fetch(self._invocation, events)[0]:
            # Indices go on over fetches, since one commit covers all of them and tags are indices.
            opened += open_chunk(chunk, len(known) + len(opened), self._decode)
            self._positions[chunk.partition] = chunk.end
        known += opened
        return Batch(opened, self._recorder)

    def commit(self) -> None:
        """Commit everything since the last commit."""
        self._recorder.enter("`consumer.commit`")
        try:
            self._commit()
        finally:
            self._recorder.lock.release()

    def _commit(self) -> None:
        recorder = self._recorder
        if recorder.at >= 0:
            raise Misuse(
                "`commit()` inside a loop over a batch would commit the events behind this one too; "
                "call it after the loop, or fetch fewer events"
            )
        self.check()
        returned = Returned(
            appends=recorder.appends(None), reads=recorder.reads(), writes=recorder.writes(None)
        )
        self._host.land(self._invocation, returned)
        # Only after the host has confirmed: if the commit fails, the notes still belong to the
        # run.
        recorder.start_next()

    def check(self) -> None:
        """Return if no fetched event was marked as failed.

        Raises:
            Misuse: Something was.
        """
        for cause in self._recorder.dropped.values():
            raise Misuse(
                "a function that consumes by itself cannot fail single events "
                f"({cause.message or cause.kind}); publish what failed to a stream, or raise"
            )

    @property
    def positions(self) -> dict[int, int]:
        """Return the next offset to fetch, by partition."""
        return dict(self._positions)

    @property
    def lag(self) -> int:
        """Return the number of events that are not fetched yet."""
        self._recorder.enter("`consumer.lag`")
        try:
            return self._host.fetch(self._invocation, 0)[1]
        finally:
            self._recorder.lock.release()
