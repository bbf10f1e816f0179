"""What a request may read: private data belongs to apps, and needs `read:APP`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Final, TypeVar

import msgspec

from headrace.admin.lag import LagRow
from headrace.admin.sources import SourceRow
from headrace.delivery.parked import ParkedKey
from headrace.environment.clock import Clock
from headrace.environment.time_slices import Slices
from headrace.http.context import ApiContext
from headrace.http.pipeline.auth import authorize, is_session
from headrace.http.request import IncomingRequest
from headrace.model.effects import DeadEvent
from headrace.model.errors import Unknown
from headrace.model.triggers.base import listeners
from headrace.runtime.instance_views import FailedStart
from headrace.security.tokens import Unauthenticated

Kept = TypeVar("Kept", DeadEvent, ParkedKey)
_NONE: Final[frozenset[str]] = frozenset()


class Owners:
    """The apps that what is kept belongs to: what a private stream holds is its app's own.

    So is what a function that reads a private stream wrote, failed with or stored: it may contain what was in it.
    Made for one request.
    """

    def __init__(self, context: ApiContext) -> None:
        self._broker = context.services.broker
        self._supervisor = context.services.supervisor
        self._streams: dict[str, frozenset[str]] = {}
        self._functions: dict[str, frozenset[str]] = {}

    def of_stream(self, name: str) -> frozenset[str]:
        """The owner of a private stream; none of a public one, or of one that does not exist any more."""
        found = self._streams.get(name)
        if found is None:
            try:
                spec = self._broker.stream(name)
            except Unknown:
                found = _NONE
            else:
                found = frozenset({spec.owner}) if spec.private else _NONE
            self._streams[name] = found
        return found

    def of_function(self, name: str) -> frozenset[str]:
        """The owners of the private streams it reads; its app where it is deployed no more."""
        found = self._functions.get(name)
        if found is None:
            function = self._supervisor.functions.get(name)
            if function is None:
                found = frozenset({name.partition(".")[0]})
            else:
                reads = (each.streams for _, each in listeners(name, function.triggers))
                found = _NONE.union(*map(self.of_stream, chain.from_iterable(reads)))
            self._functions[name] = found
        return found

    def of_kept(self, kept: DeadEvent | ParkedKey) -> frozenset[str]:
        """Those of an event that was given up, or waits."""
        stream = kept.position.stream if isinstance(kept, DeadEvent) else kept.stream
        return self.of_stream(stream) | self.of_function(kept.function)

    def of_state(self, app: str) -> frozenset[str]:
        """Those of what an app's functions keep."""
        # A function reads no private stream but its own app's.
        streams = self._broker.streams()
        own = (spec.name for spec in streams if spec.private and spec.owner == app)
        return frozenset({app}) if any(map(self._supervisor.readers, own)) else _NONE


async def authorize_reader(
    context: ApiContext, request: IncomingRequest, owners: frozenset[str]
) -> None:
    """Pass, where the request may see what is these apps' own.

    Raises:
        Unauthenticated, Refused: It may not.
    """
    for owner in sorted(owners):
        await authorize(context, request, f"read:{owner}")


class ReadAccess:
    """What a request may see in lists; rows that it may not see are left out, and texts in the others are empty."""

    def __init__(self, owners: Owners, may: Callable[[frozenset[str]], bool], clock: Clock) -> None:
        self._owners = owners
        self._may = may
        self._clock = clock

    def function(self, name: str) -> bool:
        """Whether it may see what the function wrote and failed with."""
        return self._may(self._owners.of_function(name))

    def every_app(self, apps: Iterable[str]) -> bool:
        """Whether it may see what is private to any of these apps."""
        return self._may(frozenset(apps))

    def sources(self, rows: Iterable[SourceRow]) -> Iterator[SourceRow]:
        """The rows; without the errors of functions that it may not see."""
        for row in rows:
            hidden = row.error and not self.function(row.function)
            yield msgspec.structs.replace(row, error="") if hidden else row

    def lag(self, rows: Iterable[LagRow]) -> Iterator[LagRow]:
        """The rows; without why a partition is halted where it may not see that."""
        for row in rows:
            state, _, why = row.state.partition(": ")
            hidden = why and not self.function(row.function)
            yield msgspec.structs.replace(row, state=state) if hidden else row

    def failed_start(self, function: str, found: FailedStart | None) -> FailedStart | None:
        """When the next instance is tried; why none starts only where it may see that."""
        if found is None or self.function(function):
            return found
        return msgspec.structs.replace(found, cause="")

    async def kept(self, found: Iterable[Kept]) -> list[Kept]:
        """Those that it may see."""
        slices = Slices(self._clock)
        return [each async for each in slices.over(found) if self._may(self._owners.of_kept(each))]


async def read_access_of(context: ApiContext, request: IncomingRequest) -> ReadAccess:
    """What the request may see."""
    return ReadAccess(Owners(context), await _reach(context, request), context.services.clock)


async def _reach(context: ApiContext, request: IncomingRequest) -> Callable[[frozenset[str]], bool]:
    """Whether the request may see what is these apps' own."""
    shown = request.header("authorization")
    if context.services.operator.shows(shown) or is_session(context, request):
        return lambda _: True
    try:
        token = await context.services.tokens.shown(shown)
    except Unauthenticated:
        return lambda owners: not owners
    return lambda owners: all(token.allows(f"read:{owner}") for owner in owners)
