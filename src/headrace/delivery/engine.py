"""What all delivery of a node stands on, as one value: where things are kept, time, chance and tasks.

Made once, by whoever builds a node (`node/assembly`, or a host of a simulated world). It travels instead
of its parts; whatever needs one part only takes that part.
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
        clock: Tells the time, and sleeps.
        random: Draws tokens, seeds and the spread of pauses.
        tasks: Owns what runs in the background.
        telemetry: Records what ran, what was left out and what was missed.
    """

    committer: Committer
    log: Broker
    clock: Clock
    random: Entropy
    tasks: Tasks
    telemetry: RunHistory

    @property
    def storage(self) -> Storage:
        """Keeps positions, state and everything else that survives a crash; for looks at it."""
        return self.committer.storage

    def backoff(self) -> Backoff:
        """A pause that grows with each failure of one task."""
        return Backoff(self.clock, self.random)
