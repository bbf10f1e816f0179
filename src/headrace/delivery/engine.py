"""The parts of a node that all delivery needs, as one value: storage, log, clock, randomness and tasks.

Created once, by the assembly of a node (`node/assembly`, or a host of the simulation). It is passed
instead of its parts; code that needs one part takes only that part.
"""

from __future__ import annotations

from dataclasses import dataclass

from headrace.delivery.commit.committer import Committer
from headrace.environment.clock import Clock
from headrace.environment.randomness import Entropy
from headrace.environment.restart_backoff import Backoff
from headrace.environment.tasks import Tasks
from headrace.storage.kv.base import Storage
from headrace.storage.log.base import Broker
from headrace.telemetry.history import RunHistory


@dataclass(frozen=True, slots=True)
class Engine:
    """The parts of a node that delivery uses.

    Attributes:
        committer: Commits every change of the node.
        log: Keeps the events of streams and queues.
        clock: Returns the time, and sleeps.
        random: Draws tokens, seeds and the jitter of pauses.
        tasks: Owns the background tasks.
        telemetry: Records runs, events that were left out and events that were missed.
    """

    committer: Committer
    log: Broker
    clock: Clock
    random: Entropy
    tasks: Tasks
    telemetry: RunHistory

    @property
    def storage(self) -> Storage:
        """Return the store of positions, state and everything else that survives a crash; for reads."""
        return self.committer.storage

    def backoff(self) -> Backoff:
        """Return a pause that grows with each failure of one task."""
        return Backoff(self.clock, self.random)
