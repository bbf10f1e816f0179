"""Plain calls: started as soon as their request is whole, answered as soon as the function has.

In: a head, a body and the caller. Out: an answer, by a call of `reply`. What a plain call does
is what `Application.answer` would do for it, in the same order and by the same checks, but without a
task: where all instances are busy it waits in their pool's line. An outcome with effects, or an instance
that was lost, is left to a task to finish, and whatever else is not a plain call to `answer`.
"""

from __future__ import annotations

import logging
from typing import Protocol

import msgspec

from headrace.delivery.calls.direct import CallFailed, StartedCall
from headrace.http.api import functions
from headrace.http.context import ApiContext, Routes
from headrace.http.cors import Headers, answer_headers
from headrace.http.pipeline.app_route_handler import not_of_its_type, reply_of
from headrace.http.pipeline.app_routes import Found, RouteTable
from headrace.http.pipeline.head_cache import RequestHead
from headrace.http.pipeline.payload_binding import carried, payload_of
from headrace.http.pipeline.plain_call import RequestPlan
from headrace.http.pipeline.request_body import RequestBody
from headrace.http.problem_details import answer_error, answer_surprise
from headrace.http.request import IncomingRequest
from headrace.http.response import Response
from headrace.model.codec import validate_json
from headrace.model.errors import HeadraceError
from headrace.model.outcome import Outcome
from headrace.model.triggers.http import Http
from headrace.runtime.states import Lost
from headrace.security.access import Peer, needs_proof, scope_of

_log = logging.getLogger("headrace.http")
_PARTICULAR = (b"origin", b"content-encoding", b"idempotency-key", b"expect")
"""Headers that ask for more than a plain call."""
_BY_NAME = "/functions/"
_IN_PARTS = (b"text/event-stream", b"application/x-ndjson")


def _nothing_to_resume() -> None:
    """There is no connection that could go on."""


_NOTHING = RequestBody(go_on=_nothing_to_resume, invite=None)


class Caller(Protocol):
    """Who is answered; a connection."""

    def reply(self, response: Response, extra: Headers) -> None:
        """Say it."""
        ...


class Calls:
    """Begins plain calls. One per server."""

    def __init__(self, context: ApiContext, table: RouteTable, routes: Routes) -> None:
        self._context = context
        self._table = table
        self._routes = routes
        self.admission = context.admission
        self.answered = context.answered
        self.tasks = context.tasks
        self.direct = context.services.direct
        self.clock = context.services.clock

    def begin(
        self, head: RequestHead, body: bytes, peer: Peer, caller: Caller
    ) -> FastPathCall | None:
        """Begin a call; None, and nothing was done, where it is `Application.answer`'s."""
        plan = head.plan
        if plan is None or plan.peer != peer or not self._table.holds(plan.apps):
            plan = head.plan = self._plan(head, peer)
        size = len(body)
        if not plan.function or size > plan.max_bytes or not self.admission.take(size):
            return None
        call = FastPathCall(self, plan, head.path, size, caller, self.clock.monotonic())
        try:
            target, timeout_s, judge = plan.target, None, None
            if target is None:
                payload = body or b"null"
                validate_json(payload)
            else:
                assert isinstance(target.trigger, Http)  # noqa: S101 - others are not plain calls
                payload = payload_of(
                    target.trigger, target.body, plan.method, body, {}, plan.params
                )
                timeout_s = target.trigger.timeout
                judge = target.declared_answer if self._context.services.check_answers else None
            started = self.direct.begin(
                plan.function, payload, call, timeout_s, plan.headers, judge
            )
        except Exception as error:  # noqa: BLE001 - whatever it is becomes an answer
            call.set_exception(error)
            return call
        if started is None:
            self.admission.leave(size)
            return None
        call.started = started
        return call

    def _plan(self, head: RequestHead, peer: Peer) -> RequestPlan:
        """What the head asks for; where it is to be refused, that is `Application.answer`'s as well."""
        none = RequestPlan(self._table.apps, peer)
        headers = head.headers
        if head.raw_query or head.method in {"HEAD", "OPTIONS"}:
            return none
        if any(name in headers for name in _PARTICULAR):
            return none
        try:
            self._context.admission.check_host(head.fields, headers)
            found = self._table.find(head.method, head.path, None)
            if found is None:
                return self._by_name(head, peer) if head.path.startswith(_BY_NAME) else none
            return self._at_route(head, peer, found) or none
        except Exception:  # noqa: BLE001 - what is wrong with it is for `answer` to find and say
            return none

    def _by_name(self, head: RequestHead, peer: Peer) -> RequestPlan:
        handler, names, pattern = self._routes.find(head.method, head.path)
        scope = scope_of(head.method, ["functions", *names])
        if handler is not functions.call or needs_proof(
            self._context.services.access, scope, peer, head.headers
        ):
            return RequestPlan(self._table.apps, peer)
        most = self.admission.max_body_bytes
        return RequestPlan(self._table.apps, peer, names[0], pattern, head.method, most)

    def _at_route(self, head: RequestHead, peer: Peer, found: Found) -> RequestPlan | None:
        target = found.target
        trigger = target.trigger
        if not isinstance(trigger, Http) or target.function is None or trigger.mode != "sync":
            return None
        if target.auth is not None or target.rate is not None or trigger.legacy is not None:
            return None
        if trigger.query_schema is not None:
            return None
        accept = head.headers.get(b"accept", b"")
        if any(media in accept for media in _IN_PARTS):
            return None
        request = IncomingRequest(
            head.method,
            head.path,
            b"",
            head.fields,
            head.headers,
            peer,
            _NOTHING,
            self.admission,
        )
        return RequestPlan(
            self._table.apps,
            peer,
            target.function.name,
            target.name,
            head.method,
            min(trigger.max_bytes, self.admission.max_body_bytes),
            target,
            found.params,
            carried(trigger, request, found.params, {}),
            answer_headers(target.cors, None),
        )


class FastPathCall(msgspec.Struct):
    """One plain call on its way, counted among the requests at work until it is answered.

    The `Waiter` of its run.

    Attributes:
        calls: Who began it.
        plan: What was asked for.
        path: Where, as it came.
        size: Bytes of the body.
        caller: Who is answered.
        arrived: When its last byte was there.
        started: What runs, or waits for an instance.
    """

    calls: Calls
    plan: RequestPlan
    path: str
    size: int
    caller: Caller
    arrived: float
    started: StartedCall | None = None

    def hang_up(self) -> None:
        """The client is gone: a run that has started ends, one that still waits is withdrawn."""
        started = self.started
        if started is not None and started.queued is not None and started.queued.withdraw():
            self.calls.admission.leave(self.size)

    def done(self) -> bool:
        """What waits in vain is withdrawn."""
        return False

    def set_exception(self, error: Exception, /) -> None:
        """It did not run: answer what went wrong."""
        self._reply(self._failed(error))

    def set_result(self, outcome: Outcome | Lost, /) -> None:
        """It has run: answer, or let a task do what is left to do."""
        started = self.started
        assert started is not None  # noqa: S101 - the outcome comes after the run was handed over
        calls = self.calls
        try:
            answer = calls.direct.plain(started, outcome)
            response = None if answer is None else reply_of(answer)
        except Exception as error:  # noqa: BLE001 - whatever it is becomes an answer
            response = self._failed(error)
        if response is not None:
            self._reply(response)
        elif not calls.tasks.closed:
            calls.tasks.start(self._finish(started, outcome), name="finish a call")

    async def _finish(self, started: StartedCall, outcome: Outcome | Lost) -> None:
        """Commit what it did, or run it again; then answer."""
        try:
            response = reply_of(await self.calls.direct.finish(started, outcome))
        except Exception as error:  # noqa: BLE001 - whatever it is becomes an answer
            response = self._failed(error)
        self._reply(response)

    def _failed(self, error: Exception) -> Response:
        if not isinstance(error, HeadraceError):
            reference = f"{self.calls.clock.now():x}"
            where = self.plan.pattern
            _log.error("reference %s: a call at %s broke", reference, where, exc_info=error)
            return answer_surprise(reference)
        if isinstance(error, CallFailed) and self.plan.target is not None:
            return answer_error(not_of_its_type(error) or error)
        return answer_error(error)

    def _reply(self, response: Response) -> None:
        calls, plan = self.calls, self.plan
        calls.admission.leave(self.size)
        seconds = calls.clock.monotonic() - self.arrived
        calls.answered(
            plan.pattern, plan.method, self.path, response.status, seconds, plan.function
        )
        try:
            self.caller.reply(response, plan.extra)
        except Exception:  # noqa: BLE001 - as said below
            # The caller of this callback has nothing to do with the client.
            _log.exception("an answer at %s was not sent", plan.pattern)
