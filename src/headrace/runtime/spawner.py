"""Spawner of a fleet: starts zygotes and instances, with their folders and ids.

Each zygote gets a folder below the fleet's scratch folder, in which its instances have theirs, and,
if the host is root, an exclusive block of ids. Later events are reported to the fleet, which
decides.
"""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from headrace.environment import failpoints
from headrace.model.errors import Unavailable, denied
from headrace.model.outcome import Cause
from headrace.model.settings import ImportEnvironment
from headrace.runtime.app_folders import GROUPS, AppFolders
from headrace.runtime.deployment import Deployment
from headrace.runtime.id_ranges import INSTANCE_UIDS, IdRange
from headrace.runtime.pool import Pool
from headrace.runtime.process.fleet_host import Confinement, FleetHost
from headrace.runtime.process.instance import ChildEnds, Instance
from headrace.runtime.process.zygote import Zygote
from headrace.runtime.protocol.messages import Exited, Fork, Forked, ForkFailed, pack_resources

DESCRIPTORS_PER_INSTANCE = 8
"""At most five while it runs, and three more during the fork."""
SPARE_DESCRIPTORS = 1_024
APP_GROUPS = range(INSTANCE_UIDS.stop, INSTANCE_UIDS.stop + GROUPS)
"""The range of the groups by which instances of an app share its files."""


class FleetView(Protocol):
    """The fleet, as receiver of the events of zygotes and instances."""

    def instance_requested(self, instance: Instance) -> None:
        """Register an instance that was requested from a zygote."""
        ...

    def started(self, instance: Instance) -> None:
        """Take note that an instance has started."""
        ...

    def start_failed(self, function: str, cause: Cause) -> None:
        """Take note that an instance ended before it could accept a run."""
        ...

    def gone(self, instance: Instance) -> None:
        """Take note that an instance is dead and reaped."""
        ...

    def forked(self, forked: Forked, pidfd: int) -> None:
        """Take note of a fork; the receiver owns the descriptor."""
        ...

    def fork_failed(self, failed: ForkFailed) -> None:
        """Take note of a failed fork."""
        ...

    def exited(self, exited: Exited) -> None:
        """Take note of a reaped instance."""
        ...

    def zygote_died(self, deployment: Deployment, dead: Zygote) -> None:
        """Take note of the death of a zygote and of all its instances."""
        ...


class Spawner:
    """Creates zygotes and instances. Owned by the fleet."""

    def __init__(
        self,
        fleet: FleetView,
        host: FleetHost,
        *,
        scratch: Path,
        files: AppFolders,
        import_environment: Callable[[], ImportEnvironment],
        isolation: int,
        spin: float,
    ) -> None:
        self.partitions: dict[str, int] = {}
        self._fleet = fleet
        self._host = host
        self._scratch = scratch.resolve()
        self._files = files
        self._import_environment = import_environment
        self._isolation = isolation
        # With one core a polling child takes the time that the host needs to send the run.
        self._spin = spin if (os.cpu_count() or 1) > 1 else 0.0
        self._privileged = os.geteuid() == 0
        self._ids: IdRange | None = None
        self._zygotes = 0
        self._count = 0

    def zygote(self, deployment: Deployment) -> Zygote:
        """Return a zygote for a version of an app, not started yet.

        Raises:
            DiskFull, Unavailable: Its folder cannot be created, or there are no ids.
        """
        try:
            self._scratch.mkdir(parents=True, exist_ok=True, mode=0o711)
            # Only before the first zygote: from then on the folders are this fleet's.
            if not self._zygotes:
                self._clear_scratch()
        except OSError as error:
            raise denied(f"the folder `{self._scratch}` cannot be made", error) from error
        if self._privileged and self._ids is None:
            self._ids = IdRange(self._host.entropy)
        self._zygotes += 1
        return Zygote(
            deployment.target,
            owner=Deployed(deployment, self._fleet),
            host=self._host,
            interpreter=deployment.interpreter,
            confinement=Confinement(
                self._scratch / f"{self._zygotes:x}-{self._host.entropy.token(3)}",
                self._isolation,
                0 if self._ids is None else self._ids.block(self._zygotes),
                self._files.share(deployment.target),
            ),
            import_environment=self._import_environment,
        )

    def _clear_scratch(self) -> None:
        """Remove folders of a host that was killed; no other host uses this scratch folder."""
        for folder in list(self._scratch.iterdir()):
            self._host.tasks.start(remove(folder), name=f"remove {folder.name}")

    def instance(self, deployment: Deployment, pool: Pool) -> Instance | None:
        """Request another instance; None while there is no zygote to fork it from.

        Raises:
            Unavailable: The zygote does not start, or the process has no descriptor left.
        """
        zygote = deployment.zygote
        if zygote is None or not zygote.alive:
            if not deployment.is_hopeless:
                return None
            raise Unavailable(
                f"the process that `{pool.spec.name}` is forked from does not come up; "
                "its last output is in the logs"
            )
        failpoints.hit("fork:before")
        function = pool.spec
        self._count += 1
        identity = f"{function.name}-{self._count:x}-{self._host.entropy.token(3)}"
        isolation = min(function.resources.isolation, self._isolation)
        try:
            ends, child = _open_channels()
        except OSError as error:
            raise denied(f"no instance of `{function.name}` can be forked", error) from error
        # The request is sent first, so that the host prepares while the child starts.
        folder, following = zygote.take_folder(isolation)
        order = Fork(
            identity,
            function.name,
            folder,
            following,
            isolation,
            pack_resources(function.resources),
            self.partitions,
            self._spin,
        )
        try:
            zygote.fork(order, [child.link.fileno(), child.out, child.err])
        except (OSError, Unavailable) as error:
            _close(ends)
            if isinstance(error, Unavailable):
                raise
            raise denied(f"no instance of `{function.name}` can be forked", error) from error
        finally:
            _close(child)
        instance = Instance(
            identity,
            spec=function,
            owner=Watched(pool, zygote, self._fleet),
            host=self._host,
            ends=ends,
            parent=zygote,
            scratch=zygote.scratch / folder.name,
            memory=function.resources.memory if isolation >= 1 else None,
        )
        zygote.instances.add(instance)
        self._fleet.instance_requested(instance)
        failpoints.hit("fork:after")
        return instance

    def clear(self) -> None:
        """Remove the scratch folder, once no instance runs."""
        shutil.rmtree(self._scratch, ignore_errors=True)
        if self._ids is not None:
            self._ids.give_back()


class Watched:
    """A pool as owner of its instances, which also reports to the fleet."""

    __slots__ = ("_fleet", "_pool", "_zygote", "freed", "leaving", "ran", "takes_ahead")

    def __init__(self, pool: Pool, zygote: Zygote, fleet: FleetView) -> None:
        self._pool = pool
        self._fleet = fleet
        self._zygote = zygote
        # Bound once for each instance: these are called for every run, and a method here would add
        # a call.
        self.freed = pool.freed
        self.ran = pool.ran
        self.takes_ahead = pool.takes_ahead
        self.leaving = pool.leaving

    def started(self, instance: Instance) -> None:
        """Take note that an instance has started."""
        self._pool.started()
        self._fleet.started(instance)

    def start_failed(self, cause: Cause) -> None:
        """Take note that it ended before it could accept a run."""
        self._pool.start_failed(cause)
        self._fleet.start_failed(self._pool.spec.name, cause)

    def gone(self, instance: Instance) -> None:
        """Take note that it is dead."""
        self._zygote.instances.discard(instance)
        self._fleet.gone(instance)
        self._pool.gone(instance)


class Deployed:
    """A version of an app as owner of its zygote, which reports to the fleet."""

    __slots__ = ("_deployment", "_fleet", "exited", "fork_failed", "forked")

    def __init__(self, deployment: Deployment, fleet: FleetView) -> None:
        self._deployment = deployment
        self._fleet = fleet
        self.forked = fleet.forked
        self.fork_failed = fleet.fork_failed
        self.exited = fleet.exited

    def zygote_died(self, dead: Zygote) -> None:
        """Take note of the death of the zygote and of all its instances."""
        self._fleet.zygote_died(self._deployment, dead)


def _open_channels() -> tuple[ChildEnds, ChildEnds]:
    """Open a channel and two log pipes; return the host's ends and the child's."""
    link, child_link = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    pipes: list[int] = []
    try:
        for _ in range(2):
            pipes += os.pipe2(os.O_CLOEXEC)
    except OSError:
        for end in (link, child_link):
            end.close()
        for pipe in pipes:
            os.close(pipe)
        raise
    out, child_out, err, child_err = pipes
    return ChildEnds(link, out, err), ChildEnds(child_link, child_out, child_err)


def _close(ends: ChildEnds) -> None:
    ends.link.close()
    os.close(ends.out)
    os.close(ends.err)


async def remove(folder: Path) -> None:
    """Remove a folder with its contents."""
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def allow_descriptors(instances: int) -> None:
    """Raise this process's soft limit of descriptors as far as so many instances need and the hard limit allows."""
    wanted = instances * DESCRIPTORS_PER_INSTANCE + SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
