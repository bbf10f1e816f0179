"""Kernel limits of one instance. In: resources. Out: settings, which the sandbox applies.

The address space limit is added to the zygote's size at the fork: imported libraries do not count
towards the function's memory. The kernel counts processes by uid, so that limit works only where
instances have separate uids, and never for root.
"""

from __future__ import annotations

import resource
from pathlib import Path

from headrace.model.policy import Resources

SIBLINGS = 256
"""Processes allowed for the other instances of an app, where all share a uid and count together."""
CONTROL_FILES = 4
"""Descriptors an instance needs for itself: the log pipes, an empty stdin and its channel."""


def sizes() -> tuple[int, int, int]:
    """Return this process's address space, its resident part, and that without mapped files; in bytes."""
    fields = [int(field) for field in Path("/proc/self/statm").read_text().split()[:3]]
    size, resident, shared = (field * resource.getpagesize() for field in fields)
    return size, resident, resident - shared


def address_space() -> int:
    """Return this process's address space in bytes."""
    return sizes()[0]


def plan(
    resources: Resources, *, size: int, own_uid: bool, own_ids: bool = False
) -> list[tuple[int, int]]:
    """Return the limits to set: kind and value.

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
        # Not RLIMIT_RSS, which Linux ignores since 2.4; cgroups are not available on every
        # machine.
        limits.append((resource.RLIMIT_AS, size + resources.memory))
    if own_uid:
        limits.append((resource.RLIMIT_NPROC, resources.processes))
    elif own_ids:
        limits.append((resource.RLIMIT_NPROC, resources.processes + SIBLINGS))
    return limits


def bounded(limits: list[tuple[int, int]]) -> list[tuple[int, tuple[int, int]]]:
    """Return settings for a child of this process: a limit that is already tighter stays."""
    settings: list[tuple[int, tuple[int, int]]] = []
    for kind, value in limits:
        hard = resource.getrlimit(kind)[1]
        if hard != resource.RLIM_INFINITY:
            # Raising a hard limit needs a capability, and `setrlimit` would fail the start of the
            # instance.
            value = min(value, hard)
        settings.append((kind, (value, value)))
    return settings
