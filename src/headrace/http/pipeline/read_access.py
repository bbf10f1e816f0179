"""Read access of a request: private data belongs to apps, and requires `read:APP`."""

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
    """The apps to which data belongs: the data of a private stream belongs to its app.

    So do the output, the errors and the state of a function that reads a private stream: they may contain its data.
    Created for one request.
    """

    def __init__(self, context: ApiContext) -> None:
        self._broker = context.services.broker
        self._supervisor = context.services.supervisor
        # A list may have thousands of rows of the same few streams and functions.
        self._streams: dict[str, frozenset[str]] = {}
        self._functions: dict[str, frozenset[str]] = {}

    def of_stream(self, name: str) -> frozenset[str]:
        """Return the owner of a private stream; none for a public one, or for one that no longer exists."""
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
        """Return the owners of the private streams that it reads; its app where it is no longer deployed."""
        found = self._functions.get(name)
        if found is None:
            function = self._supervisor.functions.get(name)
            if function is None:
                # Nothing shows any more what it read, so its app is asked for: closed rather than
                # open.
                found = frozenset({name.partition(".")[0]})
            else:
                reads = (each.streams for _, each in listeners(name, function.triggers))
                found = _NONE.union(*map(self.of_stream, chain.from_iterable(reads)))
            self._functions[name] = found
        return found

    def of_kept(self, kept: DeadEvent | ParkedKey) -> frozenset[str]:
        """Return the owners of a dead letter or a parked key."""
        stream = kept.position.stream if isinstance(kept, DeadEvent) else kept.stream
        return self.of_stream(stream) | self.of_function(kept.function)

    def of_state(self, app: str) -> frozenset[str]:
        """Return the owners of the state of an app's functions."""
        # A function reads no private stream but its own app's.
        streams = self._broker.streams()
        own = (spec.name for spec in streams if spec.private and spec.owner == app)
        return frozenset({app}) if any(map(self._supervisor.readers, own)) else _NONE


async def authorize_reader(
    context: ApiContext, request: IncomingRequest, owners: frozenset[str]
) -> None:
    """Pass a request that may read the private data of these apps.

    Raises:
        Unauthenticated, Refused: It may not.
    """
    for owner in sorted(owners):
        await authorize(context, request, f"read:{owner}")


class ReadAccess:
    """Read access of a request to lists: rows that it may not read are left out, texts in others are empty."""

    def __init__(self, owners: Owners, may: Callable[[frozenset[str]], bool], clock: Clock) -> None:
        self._owners = owners
        self._may = may
        self._clock = clock

    def function(self, name: str) -> bool:
        """Return whether the request may read the function's output and errors."""
        return self._may(self._owners.of_function(name))

    def every_app(self, apps: Iterable[str]) -> bool:
        """Return whether the request may read what is private to any of these apps."""
        return self._may(frozenset(apps))

    def sources(self, rows: Iterable[SourceRow]) -> Iterator[SourceRow]:
        """Yield the rows, without the errors of functions that it may not read."""
        for row in rows:
            hidden = row.error and not self.function(row.function)
            yield msgspec.structs.replace(row, error="") if hidden else row

    def lag(self, rows: Iterable[LagRow]) -> Iterator[LagRow]:
        """Yield the rows, without the reason of a halted partition where it may not read that."""
        for row in rows:
            state, _, why = row.state.partition(": ")
            hidden = why and not self.function(row.function)
            yield msgspec.structs.replace(row, state=state) if hidden else row

    def failed_start(self, function: str, found: FailedStart | None) -> FailedStart | None:
        """Return a failed start, without its cause where the request may not read that."""
        if found is None or self.function(function):
            return found
        return msgspec.structs.replace(found, cause="")

    async def kept(self, found: Iterable[Kept]) -> list[Kept]:
        """Return the entries that it may read."""
        slices = Slices(self._clock)
        return [each async for each in slices.over(found) if self._may(self._owners.of_kept(each))]


async def read_access_of(context: ApiContext, request: IncomingRequest) -> ReadAccess:
    """Return the request's read access."""
    return ReadAccess(Owners(context), await _permission(context, request), context.services.clock)


async def _permission(
    context: ApiContext, request: IncomingRequest
) -> Callable[[frozenset[str]], bool]:
    """Return a test whether the request may read the private data of some apps."""
    shown = request.header("authorization")
    if context.services.operator.shows(shown) or is_session(context, request):
        return lambda _: True
    try:
        token = await context.services.tokens.shown(shown)
    # A list is shortened and not refused: without a token, or with access `local`, public rows
    # remain.
    except Unauthenticated:
        return lambda owners: not owners
    return lambda owners: all(token.allows(f"read:{owner}") for owner in owners)
