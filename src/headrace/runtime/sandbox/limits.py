"""Kernel limits of one instance. In: resources. Out: settings, which the sandbox applies.

Address space is counted on top of what the zygote had when it forked: the imported libraries are
not the function's fault. The process limit counts a uid, so it binds only where instances have
uids of their own, and never binds root.
"""

from __future__ import annotations

import resource
from pathlib import Path

from headrace.model.policy import Resources

SIBLINGS = 256
"""Processes that the other instances of an app may be, where all count together."""
CONTROL_FILES = 4
"""Descriptors an instance needs for itself: the log pipes, an empty stdin and its channel."""


def sizes() -> tuple[int, int, int]:
    """This process's address space, what of it is resident, and that without files; in bytes."""
    fields = [int(field) for field in Path("/proc/self/statm").read_text().split()[:3]]
    size, resident, shared = (field * resource.getpagesize() for field in fields)
    return size, resident, resident - shared


def address_space() -> int:
    """This process's address space in bytes."""
    return sizes()[0]


def plan(
    resources: Resources, *, size: int, own_uid: bool, own_ids: bool = False
) -> list[tuple[int, int]]:
    """The limits to set: kind and value.

    Args:
        resources: What the function asked for.
        size: The zygote's address space in bytes.
        own_uid: Whether no other process runs under the instance's uid.
        own_ids: Whether only the app's other instances count towards its limits.
    """
    limits = [
        # 1, unlike 0, also stops dumps into a pipe (`core_pattern`): memory may hold secrets.
        (resource.RLIMIT_CORE, 1),
        (resource.RLIMIT_NOFILE, resources.files + CONTROL_FILES),
        (resource.RLIMIT_FSIZE, resources.file_size),
    ]
    if resources.memory is not None:
        limits.append((resource.RLIMIT_AS, size + resources.memory))
    if own_uid:
        limits.append((resource.RLIMIT_NPROC, resources.processes))
    elif own_ids:
        limits.append((resource.RLIMIT_NPROC, resources.processes + SIBLINGS))
    return limits


def bounded(limits: list[tuple[int, int]]) -> list[tuple[int, tuple[int, int]]]:
    """The same as settings for a child of this process: a limit that is tighter already stays."""
    settings: list[tuple[int, tuple[int, int]]] = []
    for kind, value in limits:
        hard = resource.getrlimit(kind)[1]
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        settings.append((kind, (value, value)))
    return settings
