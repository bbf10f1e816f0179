"""The host as zygotes and instances know it: its time, chance and tasks, its answers and its log."""

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
        entropy: Chance.
        tasks: Owner of what is started for an instance.
        services: Answers to what instances ask.
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
