"""A queue's consumer outside, as a test plays it: receive, acknowledge, give back, keep longer."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from headrace.delivery.queues.external_consumers import ExternalConsumers, LeasedMessage
from headrace.model.durations import Duration, seconds_in
from headrace.model.errors import Unavailable
from headrace.model.policy import MAX_VISIBILITY
from headrace.testing.faults import HostDied


class QueueConsumer:
    """Made by `World.consumer`. Every call lets the engine run until it is answered.

    Each raises `Unavailable` where the host died under it: whether it happened is unknown.
    """

    def __init__(
        self,
        name: str,
        outside: Callable[[], ExternalConsumers],
        drive: Callable[[Coroutine[Any, Any, Any]], Any],
    ) -> None:
        self._name = name
        self._outside = outside
        self._drive = drive

    def receive(self, most: int = 10, *, visibility: Duration | None = None) -> list[LeasedMessage]:
        """Return the messages that can be received now."""
        held_s = None
        if visibility is not None:
            held_s = seconds_in(visibility, "`visibility=`", low=0, high=MAX_VISIBILITY)
        found = self._ask(
            self._outside().receive(self._name, most=most, wait=0.01, visibility=held_s)
        )
        return list(found)

    def acknowledge(self, message: LeasedMessage) -> bool:
        """The message is done; False where its receipt is no longer good."""
        return bool(self._ask(self._outside().acknowledge(self._name, message.receipt)))

    def refuse(self, message: LeasedMessage, *, delay: Duration = 0.0) -> bool:
        """Give it back."""
        wait_s = seconds_in(delay, "`delay=`", low=0, high=MAX_VISIBILITY)
        return bool(self._ask(self._outside().refuse(self._name, message.receipt, delay=wait_s)))

    def extend(self, message: LeasedMessage, seconds: Duration) -> bool:
        """Keep it for `seconds` from now."""
        more_s = seconds_in(seconds, "`seconds`", low=0, high=MAX_VISIBILITY)
        return bool(self._ask(self._outside().extend(self._name, message.receipt, more_s)))

    def _ask(self, question: Coroutine[Any, Any, Any]) -> Any:
        try:
            return self._drive(question)
        except HostDied as died:
            raise Unavailable(
                f"{died} before it answered; whether it happened is unknown"
            ) from died
