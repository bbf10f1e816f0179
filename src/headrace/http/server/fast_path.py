"""The fast path: calls started as soon as their request is whole, answered as soon as the function has.

In: a head, a body and the caller. Out: an answer, by a call of `reply`, without a task: where all instances are busy
the call waits in their pool's line. It takes a request only where the steps of its route (`RoutePipeline.fast_steps`)
say that none has to wait, and runs the same steps as `Application.answer` does. An outcome with effects is
left to a task to finish.
"""

from __future__ import annotations

import logging
from typing import Protocol

import msgspec

from headrace.delivery.calls.direct import CallFailed, StartedCall
from headrace.http.context import ApiContext
from headrace.http.cors import Headers
from headrace.http.pipeline.fast_plan import FastPlan
from headrace.http.pipeline.head_cache import RequestHead
from headrace.http.pipeline.request_body import RequestBody
from headrace.http.pipeline.step import RoutedRequest, StartableEnd
from headrace.http.problem_details import answer_failure
from headrace.http.request import IncomingRequest
from headrace.http.response import Response
from headrace.http.server.route_resolver import RouteResolver
from headrace.model.outcome import Outcome
from headrace.security.access import Peer

_log = logging.getLogger("headrace.http")


def _nothing_to_resume() -> None:
    """There is no connection that could go on."""


_NOTHING = RequestBody(go_on=_nothing_to_resume, invite=None)


class Caller(Protocol):
    """Who is answered; a connection."""

    def reply(self, response: Response, extra: Headers) -> None:
        """Say it."""
        ...


class FastPath:
    """Starts calls. One per server."""

    def __init__(self, context: ApiContext, resolver: RouteResolver) -> None:
        self._resolver = resolver
        self._holds = resolver.holds
        self.admission = context.admission
        self.answered = context.answered
        self.tasks = context.tasks
        self.direct = context.services.direct
        self.clock = context.services.clock

    def begin(
        self, head: RequestHead, body: bytes, peer: Peer, caller: Caller
    ) -> FastPathCall | None:
        """Start a call; None, and nothing was done, where it is `Application.answer`'s."""
        plan = head.plan
        if plan is None or plan.peer != peer or not self._holds(plan.apps):
            plan = head.plan = self.plan(head, peer)
        end, size = plan.end, len(body)
        if end is None or not self.admission.take(size):
            return None
        # Not by `copy`, which costs five times as much.
        routed = plan.routed.__copy__()  # type: ignore[attr-defined]  # of every msgspec.Struct
        routed.body = body
        call = FastPathCall(self, plan, end, routed, caller, self.clock.monotonic())
        try:
            for step in plan.steps:
                if (response := step.take(routed)) is not None:
                    call.reply(response)
                    return call
            started = end.start(routed, call)
        except Exception as error:  # noqa: BLE001 - whatever it is becomes an answer
            call.set_exception(error)
            return call
        call.started = started
        return call

    def plan(self, head: RequestHead, peer: Peer) -> FastPlan:
        """How the fast path takes requests with this head, if it does."""
        apps = self._resolver.apps
        request = IncomingRequest(
            head.method,
            head.path,
            head.raw_query,
            head.fields,
            head.headers,
            peer,
            _NOTHING,
            self.admission,
        )
        aside = FastPlan(apps, peer, RoutedRequest(request))
        try:
            pipeline, routed = self._resolver.resolve(request)
            end = pipeline.end
            steps = pipeline.fast_steps(routed) if isinstance(end, StartableEnd) else None
        except Exception:  # noqa: BLE001 - what is wrong with it is for `answer` to find and say
            return aside
        if steps is None or not isinstance(end, StartableEnd):
            return aside
        return FastPlan(apps, peer, routed, steps, end, pipeline.pattern, pipeline.owner)


class FastPathCall(msgspec.Struct):
    """One call on its way, counted among the requests at work until it is answered.

    The `Waiter` of its run.

    Attributes:
        path: What started it.
        plan: How its head is taken.
        end: Of its route.
        routed: The request.
        caller: Who is answered.
        arrived: When its last byte was there.
        started: What runs, or waits for an instance.
    """

    path: FastPath
    plan: FastPlan
    end: StartableEnd
    routed: RoutedRequest
    caller: Caller
    arrived: float
    started: StartedCall | None = None

    def hang_up(self) -> None:
        """The client is gone: a run that has started ends, one that still waits is withdrawn."""
        started = self.started
        if started is not None and started.run.cancel():
            self.path.admission.leave(len(self.routed.body))

    def done(self) -> bool:
        """What waits in vain is withdrawn."""
        return False

    def set_exception(self, error: BaseException, /) -> None:
        """It did not run: answer what went wrong."""
        self.reply(self._failed(error))

    def set_result(self, outcome: Outcome, /) -> None:
        """It has run: answer, or let a task do what is left to do."""
        started = self.started
        assert started is not None  # noqa: S101 - the outcome comes after the run was handed over
        path = self.path
        try:
            answer = path.direct.plain(started, outcome)
            response = None if answer is None else self.end.respond(self.routed, answer)
        except Exception as error:  # noqa: BLE001 - whatever it is becomes an answer
            response = self._failed(error)
        if response is not None:
            self.reply(response)
        elif not path.tasks.closed:
            path.tasks.start(self._finish(started), name="finish a call")

    async def _finish(self, started: StartedCall) -> None:
        """Commit what it did; then answer."""
        try:
            answer = await self.path.direct.finish(started)
            response = self.end.respond(self.routed, answer)
        except Exception as error:  # noqa: BLE001 - whatever it is becomes an answer
            response = self._failed(error)
        self.reply(response)

    def _failed(self, error: BaseException) -> Response:
        if isinstance(error, CallFailed):
            error = self.end.refusal(error)
        where = f"{self.routed.request.method} {self.plan.pattern}"
        return answer_failure(error, where, self.path.clock)

    def reply(self, response: Response) -> None:
        """Answer the client, and count the answer."""
        path, plan, request = self.path, self.plan, self.routed.request
        path.admission.leave(len(self.routed.body))
        seconds = path.clock.monotonic() - self.arrived
        path.answered(
            plan.pattern, request.method, request.path, response.status, seconds, plan.owner
        )
        try:
            self.caller.reply(response, self.routed.extra)
        except Exception:  # noqa: BLE001 - as said below
            # The caller of this callback has nothing to do with the client.
            _log.exception("an answer at %s was not sent", plan.pattern)
