"""Starts the runs of a node: an argument of its partition supervisor."""

from __future__ import annotations

from dataclasses import dataclass, field

from headrace.delivery.assignment.consumer_run import ConsumerRuns
from headrace.delivery.commit.delayed_appends import DelayedAppends
from headrace.delivery.commit.publish_checks import PublishChecks
from headrace.delivery.queues.external_consumers import ExternalConsumers
from headrace.model.function import FunctionSpec
from headrace.runtime.base import Submit


@dataclass(frozen=True, slots=True)
class DeployedFunctions:
    """Functions that runs can be of. Written by the partition supervisor alone.

    Attributes:
        current: Those that are deployed, by full name.
        removed: Those that were removed and have something in hand yet.
    """

    current: dict[str, FunctionSpec] = field(default_factory=dict)
    removed: dict[str, FunctionSpec] = field(default_factory=dict)

    def find(self, name: str) -> FunctionSpec | None:
        """Return a function by its name; one that was removed as long as it has something in hand."""
        return self.current.get(name) or self.removed.get(name)


@dataclass(frozen=True, slots=True)
class NodeRuntime:
    """Starts runs.

    Attributes:
        submit: Starts a run; it passes every interceptor of the node.
        functions: Functions that runs can be of.
        publish_checks: Checks what a run publishes, also in the middle of a consumer run.
        queues: Runs of consumers outside.
        consumer_runs: Runs that fetch events themselves.
        delayed_appends: Gives messages that are due later the rows they wait in.
    """

    submit: Submit
    functions: DeployedFunctions
    publish_checks: PublishChecks
    queues: ExternalConsumers
    consumer_runs: ConsumerRuns
    delayed_appends: DelayedAppends
