"""The bus: for each watched stream one router, for each HTTP forward one poster; updated as apps change.

In: the deployed apps. Out: an app of internal functions, `_bus`, that the partition supervisor delivers to like
any other. A rule begins with what is published after `refresh` has returned: the router's first
position is durable by then.
"""

from __future__ import annotations

from headrace.bus.http_target import HttpPoster, Post
from headrace.bus.internal_functions import Handler, InternalFunctions
from headrace.bus.router import Destination, Refusals, RuleRouter
from headrace.bus.rule_checks import check_rules, rules_of
from headrace.delivery.assignment.supervisor import PartitionSupervisor
from headrace.delivery.positions import claim, position_key
from headrace.model.effects import Change, Delete, Space
from headrace.model.errors import Misuse, Unknown
from headrace.model.function import AppSpec, FunctionSpec, StreamSpec
from headrace.model.policy import Retry
from headrace.model.triggers.base import StreamTrigger, listener
from headrace.model.triggers.bus import DEFAULT_BUS, HttpTarget, Rule
from headrace.security.secrets import Secrets
from headrace.storage.kv.base import Storage
from headrace.storage.kv.keys import after
from headrace.storage.log.base import Broker

BUS_APP = "_bus"
ROUTER = f"{BUS_APP}.rules."
POSTER = f"{BUS_APP}.http."
REFUSALS = f"{BUS_APP}.refused."
"""Functions; the stream of one has a `_` in front."""
ROUTER_BATCH = 1_000
SPARE_S = 5.0


class Bus:
    """Keeps the internal functions in step with the rules of what is deployed."""

    def __init__(
        self,
        supervisor: PartitionSupervisor,
        internal: InternalFunctions,
        *,
        storage: Storage,
        broker: Broker,
        post: Post,
        secrets: Secrets,
    ) -> None:
        self._supervisor = supervisor
        self._internal = internal
        self._storage = storage
        self._broker = broker
        self._post = post
        self._secrets = secrets
        self._wanted: dict[str, list[Destination]] = {}

    @property
    def rules(self) -> dict[str, list[Destination]]:
        """The rules by the stream they watch."""
        return self._wanted

    async def prepare(self, app: AppSpec) -> None:
        """Judge an app's rules before it is deployed, and see that the default bus is there.

        Raises:
            Misuse: A rule or forward cannot work; the message names it.
        """
        check_rules(app)
        if any(DEFAULT_BUS in rule.watched for _, rule in rules_of(app)) or any(
            DEFAULT_BUS in function.publishes or function.output == DEFAULT_BUS
            for function in app.functions
        ):
            await self._broker.declare(StreamSpec(name=DEFAULT_BUS))

    async def refresh(self) -> None:
        """Forward as the deployed apps say from now on.

        Raises:
            Misuse: A rule watches, or a forward leads to, a stream that cannot be.
        """
        apps = [app for app in self._supervisor.apps.values() if app.name != BUS_APP]
        # Posters before the rules: a rule's events go to their streams, which must exist by then.
        posters, targets = self._posters(apps)
        for function in posters:
            for place, trigger in enumerate(function.triggers):
                own = _own_stream(function.name, place, trigger)
                await self._broker.declare(StreamSpec(name=own, owner=BUS_APP, private=True))
        self._wanted = wanted = self._destinations(apps, posters)
        routers = [self._router(stream, found) for stream, found in wanted.items()]
        refusals = [self._refusing(stream, found) for stream, found in wanted.items()]
        for stream in wanted:
            refused = StreamSpec(name=refusals_of(stream), owner=BUS_APP, private=True)
            await self._broker.declare(refused)
            # Before the deployment: a router claims its partitions later, and "latest" would then
            # skip what was published meanwhile.
            await self._begin(stream)
        by_stream = {stream: self.router(stream) for stream in wanted}
        handlers: dict[str, Handler] = {
            **{
                name: HttpPoster(forward, self._post, self._secrets)
                for name, forward in targets.items()
            },
            **{ROUTER + stream: router for stream, router in by_stream.items()},
            **{REFUSALS + stream: Refusals(router) for stream, router in by_stream.items()},
        }
        # Handlers that are gone stay until the deployment: events that are in flight still need them.
        # Before the functions are deployed: a first batch may arrive at once.
        self._internal.handlers = {**self._internal.handlers, **handlers}
        # Without rules there is no app `_bus`: nodes that use none pay nothing for the bus.
        if routers or BUS_APP in self._supervisor.apps:
            functions = (*posters, *routers, *refusals)
            await self._supervisor.deploy(AppSpec(name=BUS_APP, functions=functions))
            # The position of a router that still runs would be written again after it is deleted.
            await self._supervisor.left(ROUTER)
            await self._forget(set(wanted))
        ending = self._supervisor.leaving(f"{BUS_APP}.")
        self._internal.handlers = {
            **{name: each for name, each in self._internal.handlers.items() if name in ending},
            **handlers,
        }

    def _posters(self, apps: list[AppSpec]) -> tuple[list[FunctionSpec], dict[str, HttpTarget]]:
        functions, targets = [], {}
        for forward in (forward for app in apps for forward in app.forwards):
            if forward.http is not None:
                name = POSTER + forward.name
                targets[name] = forward.http
                functions.append(
                    FunctionSpec(
                        name=name,
                        app=BUS_APP,
                        triggers=(forward.rule,),
                        # One event per request: the answer's status is about this event alone.
                        batch_size=1,
                        # The request's own timeout must come first: its error names the target.
                        timeout=forward.http.timeout + SPARE_S,
                        retry=forward.http.retry,
                        summary=f"Sends events to {forward.http.url}",
                    )
                )
        return functions, targets

    def _destinations(
        self, apps: list[AppSpec], posters: list[FunctionSpec]
    ) -> dict[str, list[Destination]]:
        """The rules by the stream they watch."""
        found: dict[str, list[Destination]] = {}
        for app in (*apps, AppSpec(name=BUS_APP, functions=tuple(posters))):
            for function in app.functions:
                for place, trigger in enumerate(function.triggers):
                    if isinstance(trigger, Rule):
                        name = function.name.removeprefix(POSTER)
                        # With a number only where a function has several rules: the label is shown
                        # to operators.
                        several = sum(isinstance(one, Rule) for one in function.triggers) > 1
                        label = f"{name}#{place}" if several else name
                        own = _own_stream(function.name, place, trigger)
                        self._watch(found, app, label, trigger, own)
            for forward in app.forwards:
                if forward.stream is not None:
                    self._watch(found, app, forward.name, forward.rule, forward.stream)
        return found

    def _watch(
        self,
        found: dict[str, list[Destination]],
        app: AppSpec,
        name: str,
        rule: Rule,
        stream: str,
    ) -> None:
        to = Destination(name, rule, self._broker.stream(stream))
        for watched in rule.watched:
            try:
                spec = self._broker.stream(watched)
            except Unknown as error:
                raise Misuse(f"the rule of `{name}` watches `{watched}`: {error}") from error
            # `_bus` itself is exempt: posters read streams that belong to it.
            if spec.private and spec.owner not in {app.name, ""} and app.name != BUS_APP:
                raise Misuse(
                    f"the rule of `{name}` watches `{watched}`, which is private to "
                    f"`{spec.owner}`; watch a public stream"
                )
            if spec.codec == "msgpack":
                raise Misuse(
                    f"the rule of `{name}` watches `{watched}`, whose values are msgpack; rules read "
                    "JSON, so publish JSON there"
                )
            found.setdefault(watched, []).append(to)

    def _router(self, stream: str, found: list[Destination]) -> FunctionSpec:
        return FunctionSpec(
            name=ROUTER + stream,
            app=BUS_APP,
            triggers=(StreamTrigger(streams=(stream,), start="latest"),),
            publishes=(*_targets(found), refusals_of(stream)),
            batch_size=ROUTER_BATCH,
            retry=Retry(attempts=3),
            # A breaker would stop all rules of the stream for the errors of one.
            breaker=None,
            summary=f"Puts the events of {stream} to {len(found)} rules",
        )

    def _refusing(self, stream: str, found: list[Destination]) -> FunctionSpec:
        """The function that tries refused events again; its dead letters belong to single rules."""
        return FunctionSpec(
            name=REFUSALS + stream,
            app=BUS_APP,
            triggers=(StreamTrigger(streams=(refusals_of(stream),), start="earliest"),),
            publishes=_targets(found),
            batch_size=1,
            # What a rule makes of an event, it makes of it again.
            retry=Retry(attempts=1),
            breaker=None,
            summary=f"Keeps the events of {stream} that single rules did not take",
        )

    async def _begin(self, stream: str) -> None:
        """Make the router's first position durable, so that nothing published from now is missed."""
        name = ROUTER + stream
        for partition in range(self._broker.stream(stream).partitions):
            key = position_key(name, stream, partition)
            # A position that is there says how far the rules have come; a refresh must not move
            # it.
            if await self._storage.get(Space.POSITIONS, key) is None:
                await claim(
                    self._storage,
                    self._broker,
                    function=name,
                    stream=stream,
                    partition=partition,
                    start="latest",
                )

    async def _forget(self, watched: set[str]) -> None:
        """Delete positions of streams without rules: a later rule starts from the newest event."""
        low = ROUTER.encode()
        rows = await self._storage.scan(Space.POSITIONS, low, after(low))
        gone = [key for key, _ in rows if key[len(low) :].split(b"\0")[0].decode() not in watched]
        if gone:
            # Notes of failures refer to positions that are deleted with them.
            spaces = (Space.POSITIONS, Space.TROUBLE)
            await self._storage.apply(
                Change(deletes=tuple(Delete(space, key) for space in spaces for key in gone))
            )

    def router(self, stream: str, names: list[str] | None = None) -> RuleRouter:
        """Return the router of a stream's rules of these names, or of all.

        Raises:
            Unknown: There is no such rule.
        """
        return RuleRouter(stream, self.chosen(stream, names or []), refusals_of(stream))

    def chosen(self, stream: str, names: list[str]) -> list[Destination]:
        """The rules of a stream, those named or all.

        Raises:
            Unknown: There is no such rule.
        """
        there = self._wanted.get(stream, [])
        known = {each.name for each in there}
        for name in names:
            if name not in known:
                listed = ", ".join(f"`{each}`" for each in sorted(known)) or "none"
                raise Unknown(f"no rule `{name}` watches `{stream}`; there are: {listed}")
        return [each for each in there if not names or each.name in names]


def refusals_of(stream: str) -> str:
    """The private stream of what single rules of a stream did not take."""
    return f"_{REFUSALS}{stream}"


def _targets(found: list[Destination]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(each.stream.name for each in found))


def _own_stream(function: str, place: int, trigger: object) -> str:
    assert isinstance(trigger, Rule)  # noqa: S101 - posters have rules only
    reads = listener(function, place, trigger)
    assert reads is not None  # noqa: S101 - a rule always reads
    return reads.streams[0]
