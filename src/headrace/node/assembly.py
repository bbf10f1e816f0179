"""Builds the graph of objects of one node, once; the only package that imports all others.

In: settings. Out: a `Node` that `lifecycle` starts and closes. `shared_parts` connects what tests share with it.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

from msgspec import structs

from headrace.admin.cleanup import clear_spent
from headrace.admin.orphaned_events import leftovers
from headrace.bus.http_target import posts_over
from headrace.client.http_pool import HttpPool
from headrace.delivery.assignment.supervisor import PreparedDeployment
from headrace.delivery.commit.committer import Committer
from headrace.delivery.engine import Engine
from headrace.delivery.observed_outputs import ObservedOutputs
from headrace.delivery.partition.retention_holds import lowest_owed
from headrace.environment.clock import Clock, SystemClock
from headrace.environment.randomness import Entropy, SystemEntropy
from headrace.environment.restart_backoff import Backoff
from headrace.environment.tasks import Tasks
from headrace.http.dependencies import Dependencies, Health
from headrace.http.response import rfc3339
from headrace.http.server.server import Gateway
from headrace.model.effects import Space
from headrace.model.errors import Corrupt, Fenced, HeadraceError, Misuse, Unavailable
from headrace.model.function import AppSpec, StreamSpec
from headrace.model.route_conflicts import check_routes
from headrace.model.settings import ImportEnvironment
from headrace.node.config import Settings, secrets_of, surroundings_of
from headrace.node.shared_parts import connect_parts
from headrace.runtime.app_folders import FILES
from headrace.runtime.base import Interceptor
from headrace.runtime.deployment import Deployment
from headrace.runtime.fleet import Fleet
from headrace.runtime.process.fleet_host import FleetHost
from headrace.runtime.process.instance_logs import InstanceLine
from headrace.security.operator_key import Operator, fresh_key
from headrace.security.secrets import Secrets
from headrace.storage.kv.base import Storage
from headrace.storage.kv.sqlite.data_folder import FOLDER_MODE
from headrace.storage.kv.sqlite.storage import SqliteStorage
from headrace.storage.log.base import Broker
from headrace.storage.log.embedded.log import EmbeddedBroker
from headrace.storage.state.expiry import sweep
from headrace.telemetry.history import Observer, RunHistory
from headrace.topology.checks import refusals
from headrace.topology.missing_settings import missing_settings, needed_secrets

SWEEP_EVERY = 60.0
CLEAR_EVERY = 10
"""Sweeps between two looks at what triggers' own streams no longer need."""
_logger = logging.getLogger("headrace.node")


class Node:
    """One running node. Its parts are public: tests and benchmarks reach in through them."""

    def __init__(
        self,
        settings: Settings,
        *,
        storage: Storage,
        broker: Broker,
        clock: Clock,
        entropy: Entropy,
        tasks: Tasks,
        observer: Observer | None = None,
        interceptors: Sequence[Interceptor] = (),
    ) -> None:
        self.settings = settings
        self.storage = storage
        self.broker = broker
        self.clock = clock
        self.tasks = tasks
        self.runs = RunHistory(
            lambda: tasks.start(self._keep_outputs(), name="keep outputs"), observer
        )
        self._observed = ObservedOutputs(storage, self.runs)
        self.secrets = secrets_of(settings)
        self.outgoing = HttpPool()
        self.operator = Operator(fresh_key(entropy))
        parts = connect_parts(
            lambda services: Fleet(
                FleetHost(clock, entropy, tasks, services, self._log),
                scratch=settings.data / "scratch",
                files=settings.data / FILES,
                limits=settings.fleet,
                import_environment=self._import_environment,
            ),
            engine=Engine(Committer(storage), broker, clock, entropy, Tasks(_failed), self.runs),
            secrets=self.secrets,
            post=posts_over(self.outgoing),
            outgoing=self.outgoing,
            operator=self.operator,
            access=settings.access,
            # A serving node checks only where it is set to: each check costs time (ADR 0040).
            check_answers=settings.check_answers or settings.reload,
            health=self.health,
            # Lambdas: the fleet exists only once the parts are connected.
            instances=lambda: self.fleet.instances(),
            cold_starts=lambda: self.fleet.cold_starts,
            on_failure=_failed,
            folder=settings.data,
            interceptors=interceptors,
        )
        self.fleet = parts.runtime
        self.supervisor = parts.supervisor
        self.bus = parts.bus
        self.replays = parts.replays
        self._services = parts.services
        self.publisher = self._services.publisher
        self.tokens = self._services.tokens
        self._ready = False
        self._generation = 0
        broker.hold(self._owed)

    async def _owed(self) -> Mapping[tuple[str, int], int] | None:
        """Return the offsets that retention must keep; unknown until every app is deployed."""
        # Before, retention would delete events that an app still to be deployed has not read.
        if not self._ready:
            return None
        return await lowest_owed(self.storage, self.supervisor.functions)

    def services(self) -> Dependencies:
        """Return the services that the HTTP server calls."""
        return self._services

    def health(self) -> Health:
        """Return whether the node takes work, and what is wrong where it does not."""
        found = {
            f"{key[0]} {'+'.join(key[1])}/{key[2]}": why
            for key, why in self.supervisor.halted.items()
        }
        for keeps in (self.tasks, self.supervisor, self.replays):
            found |= {name: trouble.error for name, trouble in keeps.troubles().items()}
        down = self.fleet.down()
        found |= {f"app {name}": why for name, why in down.items()}
        found |= {
            f"instances of {name}": f"{why.cause}; tried again at {rfc3339(why.next_start)}"
            for name, why in self.fleet.not_starting().items()
        }
        if not self._ready:
            return Health(ready=False, reason="starting or stopping", checks=found)
        if down:
            names = ", ".join(f"`{name}`" for name in sorted(down))
            return Health(ready=False, reason=f"{names} cannot run", checks=found)
        return Health(ready=True, checks=found)

    def _import_environment(self) -> ImportEnvironment:
        """Return the settings and variables for an app that is imported now."""
        return structs.replace(surroundings_of(self.settings), generation=self._generation)

    def adopt(self, settings: Settings) -> None:
        """Use the new settings of apps, functions and streams from the next load on.

        Settings of the node itself (its address, its limits) stay as at its start.
        """
        self._generation += settings.apps != self.settings.apps
        self.settings = structs.replace(
            self.settings,
            functions=settings.functions,
            streams=settings.streams,
            apps=settings.apps,
            secrets=settings.secrets,
            secrets_folder=settings.secrets_folder,
        )
        self.secrets.follow(secrets_of(self.settings))

    async def deploy(self, target: str) -> AppSpec:
        """Load an app's code and deliver to its functions; the old version runs until then.

        Raises:
            Misuse: The code cannot be loaded or deployed; the old version goes on.
        """
        coming = await self.fleet.prepare(target)
        return await self._deliver(coming, await self._judged(coming))

    async def _judged(self, coming: Deployment) -> AppSpec:
        """Return the loaded app with the node's overrides.

        Raises:
            Misuse: They cannot hold together.
        """
        try:
            return self.settings.apply(coming.spec)
        # A cancellation too must not leave the processes of the prepared version behind.
        except BaseException:
            await self.fleet.discard(coming)
            raise

    async def _deliver(self, coming: Deployment, app: AppSpec) -> AppSpec:
        if self.supervisor.apps.get(app.name) == app:
            # The version is a hash of everything that runs, so nothing would change (ADR 0037).
            await self.fleet.discard(coming)
            return app
        try:
            prepared = await self._prepared(app)
        except BaseException:
            await self.fleet.discard(coming)
            raise
        self.fleet.set_partitions({spec.name: spec.partitions for spec in self.broker.streams()})
        # No `await` between the two: no request may find the names of one version and the functions
        # of another (ADR 0037).
        self.fleet.switch(coming, app)
        self.supervisor.switch(prepared)
        self.tasks.start(self._release(app.name), name=f"release {app.name}")
        for left in await leftovers(app, storage=self.storage, broker=self.broker):
            _logger.warning("%s", left)
        if self._ready:
            await self.bus.refresh()
        return app

    async def _prepared(self, app: AppSpec) -> PreparedDeployment:
        """Do everything of a deployment that may fail.

        Raises:
            Misuse: The app declares something impossible, alone or together with the others.
        """
        others = [other for other in self.supervisor.apps.values() if other.name != app.name]
        _refuse_lacking([app], self.secrets)
        _refuse_wrong([*others, app], self.broker.streams())
        await self.bus.prepare(app)
        check_routes(
            [spec for each in (*others, app) for spec in each.functions],
            [proxy for each in (*others, app) for proxy in each.proxies],
        )
        return await self.supervisor.prepare(app)

    async def _release(self, app: str) -> None:
        """Release the functions that were removed, once none of their runs is left."""
        await self.supervisor.left(f"{app}.")
        self.fleet.release(app)

    async def start(self) -> None:
        """Deploy the apps that the settings name, and start housekeeping."""
        coming = [await self.fleet.prepare(target) for target in self.settings.targets]
        apps = [self.settings.apply(each.spec) for each in coming]
        _refuse_lacking(apps, self.secrets)
        _refuse_wrong(apps, self.broker.streams())
        # All streams first: apps may read each other's, in any order of their names.
        for app in apps:
            for stream in app.streams:
                await self.broker.declare(stream)
        for each, app in zip(coming, apps, strict=True):
            await self._deliver(each, app)
        await self._observed.load(self.supervisor.functions)
        # Once every app is deployed: no rule may miss what another app's router has passed.
        await self.bus.refresh()
        await self.replays.resume()
        for sentence in self.settings.unmatched(self.supervisor.apps.values()):
            raise Misuse(sentence)
        self.tasks.supervise(self._housekeeping, name="housekeeping", backoff=Backoff(self.clock))
        self._ready = True

    async def _keep_outputs(self) -> None:
        try:
            await self._observed.keep()
        except HeadraceError as error:
            _logger.warning("where functions publish to was not kept yet: %s", error)

    async def _housekeeping(self) -> None:
        for turn in itertools.count():
            await self.clock.sleep(SWEEP_EVERY)
            await self._keep_outputs()
            if turn % CLEAR_EVERY == 0:
                try:
                    await clear_spent(
                        self.supervisor.functions.values(),
                        storage=self.storage,
                        broker=self.broker,
                        clock=self.clock,
                    )
                # The next turn tries again; the sweeps below must not wait for that.
                except (Corrupt, Unavailable) as error:
                    _logger.warning("finished events were not cleared away yet: %s", error)
            for space in (Space.STATE, Space.MARKS):
                try:
                    await sweep(self.storage, space, self.clock.now())
                except (Corrupt, Unavailable) as error:
                    _logger.warning("a sweep of what has expired was put off: %s", error)

    async def drain(self, grace: float) -> None:
        """Start no new run; those in flight get `grace` seconds to end and commit."""
        self._ready = False
        await self.replays.close()
        await self.supervisor.close(grace)

    async def close(self) -> None:
        """Stop partition workers, instances, log and storage, in this order.

        Drain first if runs should end by themselves: runs that are still active now are killed.
        """
        await self.drain(0.0)
        await self.fleet.close(0.0)
        self.outgoing.close()
        await self.broker.close()
        await self.tasks.close()
        # Last: all the others may still write to it while they close.
        await self.storage.close()

    def _log(self, line: InstanceLine) -> None:
        self.runs.write(
            time=line.time,
            function=line.function,
            instance=line.instance,
            key=line.invocation,
            level=line.level,
            text=line.message,
        )


def _refuse_lacking(apps: Sequence[AppSpec], secrets: Secrets) -> None:
    """Pass, where the apps have all that their operator must give them.

    Raises:
        Misuse: They lack settings or secrets; all of them are named.
    """
    missing = [*missing_settings(apps), *secrets.missing(needed_secrets(apps))]
    if missing:
        raise Misuse("\n".join(missing))


def _refuse_wrong(apps: Iterable[AppSpec], existing: Iterable[StreamSpec]) -> None:
    """Pass, where the apps may be served together, by the same checks as `headrace validate`.

    Raises:
        Misuse: They may not: one uses another's private stream, or declares what is another's.
    """
    for finding in refusals(apps, existing):
        raise Misuse(finding.message)


def _failed(name: str, error: BaseException) -> None:
    # The message of an expected error is complete; only an unexpected one needs its traceback.
    expected = isinstance(error, Fenced | Misuse | Unavailable)
    _logger.error("task `%s` failed: %s", name, error, exc_info=None if expected else error)


@contextlib.asynccontextmanager
async def running(settings: Settings, observer: Observer | None = None) -> AsyncIterator[Node]:
    """Start a node without its server; close it at the end, also after an error.

    Args:
        settings: The settings of the node.
        observer: Receives the events of the node.

    Raises:
        Locked: Another process owns the data folder.
        Misuse: An app cannot be loaded.
    """
    clock, entropy = SystemClock(), SystemEntropy()
    tasks = Tasks(_failed)
    try:
        settings.data.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    except OSError as error:
        raise Misuse(
            f"the data folder `{settings.data}` cannot be made: {error.strerror}; "
            "choose one with `--data` that this user may write"
        ) from error
    storage = await SqliteStorage.open(settings.data, clock=clock)
    broker = EmbeddedBroker(storage, clock=clock, tasks=tasks)
    node = Node(
        settings,
        storage=storage,
        broker=broker,
        clock=clock,
        entropy=entropy,
        tasks=tasks,
        observer=observer,
    )
    try:
        await node.start()
        yield node
    finally:
        await node.close()


def make_gateway(node: Node) -> Gateway:
    """Return the node's HTTP server, not listening yet."""
    return Gateway(node.services(), node.settings)
