"""State of delivery to a function's partitions, from partition workers and instances."""

from __future__ import annotations

from headrace.delivery.assignment.supervisor import PartitionSupervisor
from headrace.runtime.instance_views import FailedStart, FailedStarts

NOT_STARTING = "not starting"
_AT_WORK = frozenset({"running", "retrying"})


class DeliveryStates:
    """Reads the state of partition workers and of instance starts; changes nothing.

    Args:
        supervisor: The partition supervisor.
        failed_start: Returns why no instance of a function starts.
    """

    def __init__(self, supervisor: PartitionSupervisor, failed_start: FailedStarts) -> None:
        self.supervisor = supervisor
        self._failed_start = failed_start

    def stuck(self, function: str) -> FailedStart | None:
        """Return why events of the function wait for an instance that does not start; None if one runs."""
        found = self._failed_start(function)
        return None if found is None or found.running else found

    def of(self, function: str, stream: str, partition: int) -> str:
        """Return a state such as `running`, `paused`, `halted: why`, `not starting: why`."""
        state = self.supervisor.state_of(function, stream, partition)
        # Only if the partition itself works: a pause or a halt explains more.
        if state in _AT_WORK and (found := self.stuck(function)) is not None:
            return f"{NOT_STARTING}: {found.cause}"
        return state
