"""The fast path: a call starts as soon as its request is complete and is answered by a callback.

In: a head, a body and the caller. Out: an answer, by a call of `reply`, without a task; where all instances are busy
the call waits in their pool's queue. The fast path takes a request only if no step of its route has to wait
(`RoutePipeline.fast_steps`), and runs the same steps as `Application.answer`. A task finishes an outcome with effects.
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
    """Do nothing: a plan is made without a connection."""


_NOTHING = RequestBody(resume=_nothing_to_resume, invite=None)


class Caller(Protocol):
    """The receiver of an answer: a connection."""

    def reply(self, response: Response, extra: Headers) -> None:
        """Send the answer."""
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
        """Start a call; None, without any effect, where `Application.answer` must take the request."""
        plan = head.plan
        # A plan holds for one peer and one set of deployed apps: access depends on the peer, and
        # a reload may change the route (ADR 0020).
        if plan is None or plan.peer != peer or not self._holds(plan.apps):
            plan = head.plan = self.plan(head, peer)
        end, size = plan.end, len(body)
        # A full node is not refused here: `Application.answer` tries again and owns the error.
        if end is None or not self.admission.take(size):
            return None
        # The plan's request is a template: each call gets a copy to write into.
        # `copy.copy` costs five times as much as the method.
        routed = plan.routed.__copy__()  # type: ignore[attr-defined]  # of every msgspec.Struct
        routed.body = body
        call = FastPathCall(self, plan, end, routed, caller, self.clock.monotonic())
        try:
            for step in plan.steps:
                if (response := step.take(routed)) is not None:
                    call.reply(response)
                    return call
            started = end.start(routed, call)
        # From here on the request counts as admitted, so every error must end in `reply`, which
        # releases it.
        except Exception as error:  # noqa: BLE001 - whatever it is becomes an answer
            call.set_exception(error)
            return call
        # The outcome never comes before `start` has returned: `set_result` relies on `started`.
        call.started = started
        return call

    def plan(self, head: RequestHead, peer: Peer) -> FastPlan:
        """Return the plan for requests with this head; one without an end where the fast path does not take them."""
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
        # A plan without an end is kept with the head too, so a route that needs a task does not
        # resolve its path twice for each request.
        aside = FastPlan(apps, peer, RoutedRequest(request))
        try:
            pipeline, routed = self._resolver.resolve(request)
            end = pipeline.end
            steps = pipeline.fast_steps(routed) if isinstance(end, StartableEnd) else None
        except Exception:  # noqa: BLE001 - `answer` meets the same error and reports it
            return aside
        if steps is None or not isinstance(end, StartableEnd):
            return aside
        return FastPlan(apps, peer, routed, steps, end, pipeline.pattern, pipeline.owner)


class FastPathCall(msgspec.Struct):
    """One call in flight, counted by admission until it is answered. The `Waiter` of its run.

    Attributes:
        path: The fast path that started it.
        plan: The plan of its head.
        end: The end of its route.
        routed: The request.
        caller: The connection that is answered.
        arrived: Monotonic time at which its last byte had arrived, in seconds.
        started: The run, or None until it is submitted.
    """

    path: FastPath
    plan: FastPlan
    end: StartableEnd
    routed: RoutedRequest
    caller: Caller
    arrived: float
    started: StartedCall | None = None

    def hang_up(self) -> None:
        """Cancel the run, whether it has started or still waits; the client is gone."""
        started = self.started
        # `cancel` is true where the waiter will hear nothing more. Else `reply` releases the request,
        # and doing it here as well would release it twice.
        if started is not None and started.run.cancel():
            self.path.admission.leave(len(self.routed.body))

    def done(self) -> bool:
        """Return false: nobody withdraws a call but `hang_up`."""
        return False

    def set_exception(self, error: BaseException, /) -> None:
        """Answer with the error that prevented the run."""
        self.reply(self._failed(error))

    def set_result(self, outcome: Outcome, /) -> None:
        """Answer with the outcome, or start a task that commits its effects first."""
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
        # A server that has stopped has answered 503 by `cut` already, and its group takes no
        # task.
        elif not path.tasks.closed:
            path.tasks.start(self._finish(started), name="finish a call")

    async def _finish(self, started: StartedCall) -> None:
        """Commit the effects, then answer: an answer promises that they are stored."""
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
        except Exception:  # noqa: BLE001 - see below
            # The callback runs inside the instance's reader, which an error of one client must not end.
            _log.exception("an answer at %s was not sent", plan.pattern)
