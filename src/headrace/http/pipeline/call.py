"""The ends of routes: call a function, stream its answer, append the request to the log, forward it, run a handler."""

from __future__ import annotations

from headrace.delivery.calls.direct import CallFailed, StartedCall
from headrace.delivery.calls.idempotency import RequestRecorder
from headrace.delivery.calls.streaming import Judge
from headrace.http.context import ApiContext, Handler
from headrace.http.pipeline.app_routes import Target
from headrace.http.pipeline.payload_binding import picked, query_texts
from headrace.http.pipeline.proxy import pass_on, pass_through, takes_share
from headrace.http.pipeline.respond import in_parts, not_of_its_type, reply_of
from headrace.http.pipeline.step import RoutedRequest, RouteEnd, RouteStep, StartableEnd
from headrace.http.response import Response, json_response
from headrace.http.streaming_response import AnswerState, StreamedAnswer
from headrace.model.errors import HeadraceError
from headrace.model.event import Event
from headrace.model.record import Position
from headrace.model.route import API_PREFIX
from headrace.model.triggers.http import Http, Legacy, Proxy, Webhook
from headrace.runtime.base import Waiter
from headrace.storage.kv.keys import pack


class CallByName(StartableEnd):
    """Call a function, and answer with what it returned, once that is committed."""

    def __init__(self, context: ApiContext, function: str) -> None:
        self._direct = context.services.direct
        self._function = function
        self._timeout_s: float | None = None
        self._judge: Judge | None = None

    def start(self, routed: RoutedRequest, waiter: Waiter) -> StartedCall:
        """Start the call as `DirectCalls.begin` does, without an idempotency key."""
        # `ReadKey` waits, so the fast path never takes a request with a key.
        return self._direct.begin(
            self._function, routed.payload, waiter, self._limit(routed), routed.headers, self._judge
        )

    async def run(self, routed: RoutedRequest) -> Response:
        """Call the function, and answer."""
        return self.respond(routed, await self.call(routed))

    async def call(self, routed: RoutedRequest, listener: StreamedAnswer | None = None) -> bytes:
        """Return the function's answer; `listener` receives its parts as they come.

        Raises:
            HeadraceError: As `DirectCalls.call`, or what `refusal` makes of it.
        """
        try:
            return await self._direct.call(
                self._function,
                routed.payload,
                key=routed.once,
                digest=routed.digest,
                timeout_s=self._limit(routed),
                headers=routed.headers,
                listener=listener,
                judge=self._judge,
            )
        except CallFailed as error:
            if (refusal := self.refusal(error)) is not error:
                raise refusal from error
            raise

    def _limit(self, routed: RoutedRequest) -> float | None:
        return self._timeout_s if routed.timeout_s is None else routed.timeout_s

    def respond(self, routed: RoutedRequest, answer: bytes) -> Response:
        """Return the answer unchanged."""
        return reply_of(answer)

    def refusal(self, error: CallFailed) -> HeadraceError:
        """Return the error itself."""
        return error


class CallRoute(CallByName):
    """Call the function of an author's route."""

    def __init__(self, context: ApiContext, target: Target) -> None:
        assert target.function is not None  # noqa: S101 - a proxy ends in `PassThrough`
        super().__init__(context, target.function.name)
        self._timeout_s = target.trigger.timeout
        self._judge = target.declared_answer if context.services.check_answers else None

    def respond(self, routed: RoutedRequest, answer: bytes) -> Response:
        """Return the answer; a list in parts, where the client wants that."""
        response = reply_of(answer)
        return in_parts(response, routed.accept) if routed.accept else response

    def refusal(self, error: CallFailed) -> HeadraceError:
        """Return a client error where the body is not of the handler's type."""
        # A body that the handler's type refuses is the client's mistake (400), although it is
        # found in the instance.
        return not_of_its_type(error) or error


class StreamRoute(RouteEnd):
    """Call the function of a `live` route, and send each value when it is yielded."""

    def __init__(self, context: ApiContext, target: Target) -> None:
        self._route = CallRoute(context, target)

    async def run(self, routed: RoutedRequest) -> Response:
        """Return the answer; one that was sent in parts is not sent again."""
        streamed = routed.request.streamed_answer(routed.extra)
        response = reply_of(await self._route.call(routed, streamed))
        if streamed is not None and streamed.state is AnswerState.STARTED:
            # Only here, after the commit: the last chunk promises that the effects are stored
            # (ADR 0019).
            streamed.end()
            return response
        # Nothing was sent yet: the answer to a repetition, one without values, or one for an
        # HTTP/1.0 client.
        return in_parts(response, routed.accept, live=True)


class KeepRequest(RouteEnd):
    """Append the event of an `async` route or a webhook, and return the address of its status."""

    def __init__(self, context: ApiContext, target: Target, trigger: Http | Webhook) -> None:
        self._context = context
        self._stream = target.stream
        self._trigger = trigger

    async def run(self, routed: RoutedRequest) -> Response:
        """Answer 202 once the event is on disk."""
        request, payload = routed.request, routed.payload
        key = picked(self._trigger.key, request, routed.params, routed.query, payload)
        # The sender's signed message id wins: it identifies repetitions better than a header that
        # is not signed.
        name = routed.event_id or routed.once or None
        event = Event(payload, key, id=name, headers=routed.headers)
        position, is_known = await self._keep(event, b"" if routed.event_id else routed.digest)
        if position is None:
            return json_response({"accepted": True, "duplicate": is_known}, status=202)
        if self._context.api_apart:
            # The address is one of the API's, where this client may not get at.
            return json_response({"accepted": True, "duplicate": is_known}, status=202)
        place = await run_address(self._context, position)
        return json_response(
            {"accepted": True, "duplicate": is_known, "status": place},
            status=202,
            headers=((b"location", place.encode()),),
        )

    async def _keep(self, event: Event, digest: bytes) -> tuple[Position | None, bool]:
        """Append the event; return its position and whether it was a duplicate."""
        services, trigger = self._context.services, self._trigger
        origin = f"http{trigger.path}"
        # With an `Idempotency-Key` the mark, the digest and the event are committed together: a
        # mark stored first would acknowledge a lost event. Webhooks have no digest: a signed id
        # is unique by contract, so the stream's deduplication is enough.
        if digest and isinstance(trigger, Http):
            recorder = RequestRecorder(
                services.publisher,
                committer=services.supervisor.committer,
                broker=services.broker,
                clock=services.clock,
                entropy=services.entropy,
            )
            return await recorder.keep(
                self._stream,
                event,
                mark=pack(self._stream, event.id or ""),
                digest=digest,
                seconds=float(trigger.dedupe),
                origin=origin,
            )
        published = await services.publisher.publish(self._stream, [event], hops=1, origin=origin)
        return published.positions[0], published.duplicates > 0


async def run_address(context: ApiContext, position: Position) -> str:
    """Return the address of a stored request's status."""
    # The address needs no token, so a signature keeps clients from guessing the positions of
    # other requests.
    text = f"{position.stream}-{position.partition}-{position.offset}"
    return f"{API_PREFIX}/requests/{text}-{await context.services.address_signer.mark(text)}"


class PassShare(RouteStep):
    """Forward a share of a route's requests to the system that it replaces."""

    def __init__(self, context: ApiContext, trigger: Http, legacy: Legacy) -> None:
        self._context = context
        self._trigger = trigger
        self._legacy = legacy

    async def run(self, routed: RoutedRequest) -> Response | None:
        """Return that system's answer; None where the request does not belong to its share.

        Raises:
            Invalid: The query cannot be read.
            UpstreamFailed, UpstreamLate: There is no answer.
        """
        request, legacy = routed.request, self._legacy
        # The untyped query: the route's type is this system's, and must not refuse what the old
        # one accepts.
        query = {name: given[-1] for name, given in query_texts(request).items()}
        sticky = picked(legacy.sticky, request, routed.params, query, b"")
        chance = self._context.services.entropy.uniform(0, 1)
        if not takes_share(legacy, self._trigger.path, sticky, chance):
            return None
        return await pass_on(self._context, request, self._trigger, routed.body)


class PassThrough(RouteEnd):
    """Forward a request to a proxy's upstream."""

    def __init__(self, context: ApiContext, trigger: Proxy) -> None:
        self._context = context
        self._trigger = trigger

    async def run(self, routed: RoutedRequest) -> Response:
        """Return the upstream's answer.

        Raises:
            UpstreamFailed, UpstreamLate: There is none.
            CallFailed: A `before` or `after` function failed.
        """
        params = dict(routed.params)
        return await pass_through(self._context, routed.request, self._trigger, params, routed.body)


class RunHandler(RouteEnd):
    """Run the handler of one of the platform's own paths."""

    def __init__(self, context: ApiContext, handler: Handler, names: tuple[str, ...]) -> None:
        self._context = context
        self._handler = handler
        self._names = names

    async def run(self, routed: RoutedRequest) -> Response:
        """Return the handler's answer."""
        return await self._handler(self._context, routed.request, self._names)
