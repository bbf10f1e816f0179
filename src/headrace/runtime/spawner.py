"""Everything of a fleet that comes to life: zygotes and instances, with their folders and ids.

Each zygote gets a folder of its own beneath the fleet's scratch folder, in which its instances have
theirs, and, where the host is root, a block of ids that are nobody else's. What happens to them
later is told to the fleet, and decided there.
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
"""Five it keeps at most, three more while it is forked."""
SPARE_DESCRIPTORS = 1_024
APP_GROUPS = range(INSTANCE_UIDS.stop, INSTANCE_UIDS.stop + GROUPS)
"""Where the groups lie by which instances of an app share its files."""


class FleetView(Protocol):
    """The fleet, as those that come to life know it."""

    def born(self, instance: Instance) -> None:
        """An instance was ordered."""
        ...

    def started(self, instance: Instance) -> None:
        """It has come up."""
        ...

    def start_failed(self, function: str, cause: Cause) -> None:
        """One ended before it could take up a run."""
        ...

    def gone(self, instance: Instance) -> None:
        """It is dead and reaped."""
        ...

    def forked(self, forked: Forked, pidfd: int) -> None:
        """A zygote forked; the descriptor is yours."""
        ...

    def fork_failed(self, failed: ForkFailed) -> None:
        """A zygote could not."""
        ...

    def exited(self, exited: Exited) -> None:
        """A zygote reaped an instance."""
        ...

    def zygote_died(self, deployment: Deployment, dead: Zygote) -> None:
        """A zygote is dead, and all that was below it."""
        ...


class Spawner:
    """Makes zygotes and instances. Owned by the fleet."""

    def __init__(
        self,
        hears: FleetView,
        host: FleetHost,
        *,
        scratch: Path,
        files: AppFolders,
        surroundings: Callable[[], ImportEnvironment],
        isolation: int,
        spin: float,
    ) -> None:
        self.partitions: dict[str, int] = {}
        self._hears = hears
        self._host = host
        self._scratch = scratch.resolve()
        self._files = files
        self._surroundings = surroundings
        self._isolation = isolation
        self._spin = spin if (os.cpu_count() or 1) > 1 else 0.0
        self._privileged = os.geteuid() == 0
        self._ids: IdRange | None = None
        self._zygotes = 0
        self._count = 0

    def zygote(self, deployment: Deployment) -> Zygote:
        """A zygote for a version of an app, not started yet.

        Raises:
            DiskFull, Unavailable: There is no folder to be had for it, or there are no ids.
        """
        try:
            self._scratch.mkdir(parents=True, exist_ok=True, mode=0o711)
            if not self._zygotes:
                self._clear_scratch()
        except OSError as error:
            raise denied(f"the folder `{self._scratch}` cannot be made", error) from error
        if self._privileged and self._ids is None:
            self._ids = IdRange(self._host.entropy)
        self._zygotes += 1
        return Zygote(
            deployment.target,
            owner=Deployed(deployment, self._hears),
            host=self._host,
            interpreter=deployment.interpreter,
            confinement=Confinement(
                self._scratch / f"{self._zygotes:x}-{self._host.entropy.token(3)}",
                self._isolation,
                0 if self._ids is None else self._ids.block(self._zygotes),
                self._files.share(deployment.target),
            ),
            surroundings=self._surroundings,
        )

    def _clear_scratch(self) -> None:
        """Take away what a host left here that was killed; the folder is ours alone."""
        for folder in list(self._scratch.iterdir()):
            self._host.tasks.start(remove(folder), name=f"remove {folder.name}")

    def instance(self, deployment: Deployment, pool: Pool) -> Instance | None:
        """Order another instance; None while there is no zygote to fork it from.

        Raises:
            Unavailable: The zygote does not come up, or the system gives us no more descriptors.
        """
        zygote = deployment.zygote
        if zygote is None or not zygote.alive:
            if not deployment.is_hopeless:
                return None
            raise Unavailable(
                f"the process that `{pool.spec.name}` is forked from does not come up; "
                "its last words are in the logs"
            )
        failpoints.hit("fork:before")
        function = pool.spec
        self._count += 1
        identity = f"{function.name}-{self._count:x}-{self._host.entropy.token(3)}"
        isolation = min(function.resources.isolation, self._isolation)
        try:
            ends, child = _open_lines()
        except OSError as error:
            raise denied(f"no instance of `{function.name}` can be forked", error) from error
        # The order leaves first: we get ready while the child does.
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
            owner=Watched(pool, zygote, self._hears),
            host=self._host,
            ends=ends,
            parent=zygote,
            scratch=zygote.scratch / folder.name,
            memory=function.resources.memory if isolation >= 1 else None,
        )
        zygote.instances.add(instance)
        self._hears.born(instance)
        failpoints.hit("fork:after")
        return instance

    def clear(self) -> None:
        """Take the scratch folder away, once nobody lives."""
        shutil.rmtree(self._scratch, ignore_errors=True)
        if self._ids is not None:
            self._ids.give_back()


class Watched:
    """A pool as its instances know it, with the fleet listening."""

    __slots__ = ("_hears", "_pool", "_zygote", "freed", "leaving", "takes_ahead", "took")

    def __init__(self, pool: Pool, zygote: Zygote, hears: FleetView) -> None:
        self._pool = pool
        self._hears = hears
        self._zygote = zygote
        self.freed = pool.freed
        self.took = pool.took
        self.takes_ahead = pool.takes_ahead
        self.leaving = pool.leaving

    def started(self, instance: Instance) -> None:
        """It has come up."""
        self._pool.started()
        self._hears.started(instance)

    def start_failed(self, cause: Cause) -> None:
        """It ended before it could take up a run."""
        self._pool.start_failed(cause)
        self._hears.start_failed(self._pool.spec.name, cause)

    def gone(self, instance: Instance) -> None:
        """It is dead."""
        self._zygote.instances.discard(instance)
        self._hears.gone(instance)
        self._pool.gone(instance)


class Deployed:
    """A version of an app as its zygote knows it, with the fleet listening."""

    __slots__ = ("_deployment", "_hears", "exited", "fork_failed", "forked")

    def __init__(self, deployment: Deployment, hears: FleetView) -> None:
        self._deployment = deployment
        self._hears = hears
        self.forked = hears.forked
        self.fork_failed = hears.fork_failed
        self.exited = hears.exited

    def zygote_died(self, dead: Zygote) -> None:
        """It is dead, and all that was below it."""
        self._hears.zygote_died(self._deployment, dead)


def _open_lines() -> tuple[ChildEnds, ChildEnds]:
    """A channel and two log pipes: our ends, and the child's."""
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
    """Take a folder away with all it holds."""
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def allow_descriptors(instances: int) -> None:
    """Raise this process's own limit as far as it goes and so many instances need."""
    wanted = instances * DESCRIPTORS_PER_INSTANCE + SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
