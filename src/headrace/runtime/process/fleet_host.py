"""The host's services for zygotes and instances: clock, randomness, tasks, answers and log."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from headrace.environment.clock import Clock
from headrace.environment.randomness import Entropy
from headrace.environment.tasks import Tasks
from headrace.runtime.app_folders import FolderShare
from headrace.runtime.host_services import HostServices
from headrace.runtime.process.instance_logs import InstanceLine


def ignore(_line: InstanceLine) -> None:
    """Drop a line of an instance's log."""


class FleetHost(msgspec.Struct, frozen=True):
    """One host, shared by all processes of its fleet.

    Attributes:
        clock: The time.
        entropy: Randomness.
        tasks: Owner of the tasks that are started for an instance.
        services: Answers the questions of instances.
        on_log: Takes every line that a process writes.
    """

    clock: Clock
    entropy: Entropy
    tasks: Tasks
    services: HostServices
    on_log: Callable[[InstanceLine], None] = ignore


class Confinement(msgspec.Struct, frozen=True):
    """Bounds of one zygote and its instances: folders, ids and isolation.

    Attributes:
        scratch: Folder of the zygote, in which each instance has its own.
        isolation: Highest level, 0 to 2.
        uid: First of its block of user ids; 0 where the host is not root.
        files: Folder that the app's instances share, and its group.
    """

    scratch: Path
    isolation: int
    uid: int
    files: FolderShare
