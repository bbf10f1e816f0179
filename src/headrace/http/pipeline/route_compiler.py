"""A declared route -> its pipeline. The order of the steps is the same for all routes.

Origin, token, rate, body, signature, types, and only then the function, the log or another service: a refused
request has changed nothing.
"""

from __future__ import annotations

from headrace.http.context import ApiContext
from headrace.http.pipeline.app_routes import Target
from headrace.http.pipeline.auth import AnswerPreflight, Authenticate, CheckOrigin
from headrace.http.pipeline.bind import BindPayload, BindQuery, CarryHeaders, ReadAccept, ReadKey
from headrace.http.pipeline.body import AnswerChallenge, ReadBody, UnpackBody, VerifySignature
from headrace.http.pipeline.call import (
    CallRoute,
    KeepRequest,
    PassShare,
    PassThrough,
    StreamRoute,
)
from headrace.http.pipeline.rate import LimitRate
from headrace.http.pipeline.route_pipeline import RoutePipeline
from headrace.http.pipeline.step import RouteEnd, RouteStep
from headrace.model.triggers.http import Http, Proxy, Webhook


def compile_route(context: ApiContext, target: Target) -> RoutePipeline:
    """Return the pipeline of an author's route."""
    trigger = target.trigger
    steps = [*_entry(context, target), ReadBody(context, trigger.max_bytes)]
    end: RouteEnd
    if isinstance(trigger, Proxy):
        end = PassThrough(context, trigger)
    else:
        steps += _event(context, target, trigger)
        end = _end(context, target, trigger)
    return RoutePipeline(steps, end, pattern=target.name, owner=target.owner)


def _entry(context: ApiContext, target: Target) -> list[RouteStep]:
    """Return the steps that decide by the head: origin, token, rate."""
    signed = isinstance(target.trigger, Webhook)
    steps: list[RouteStep] = [
        CheckOrigin(context, target.cors, signed=signed),
        AnswerPreflight(target.cors),
    ]
    # The token comes before the rate, which counts by the token's id where there is one.
    limit = None if target.rate is None else LimitRate(context, target.name, target.rate)
    if target.auth is not None:
        steps.append(Authenticate(context, target.auth, limit))
    if limit is not None:
        steps.append(limit)
    return steps


def _event(context: ApiContext, target: Target, trigger: Http | Webhook) -> list[RouteStep]:
    """Return the steps that build the function's event."""
    steps: list[RouteStep] = []
    if isinstance(trigger, Http) and trigger.legacy is not None:
        # Before the body is decompressed: the old system gets it as it came, with its
        # `Content-Encoding`.
        steps.append(PassShare(context, trigger, trigger.legacy))
    if isinstance(trigger, Webhook):
        # Before the body is decompressed: senders sign the bytes that they send.
        steps.append(VerifySignature(context, trigger))
    steps.append(UnpackBody(trigger.max_bytes))
    if isinstance(trigger, Webhook) and AnswerChallenge.is_needed(trigger):
        # After the signature: an unsigned challenge would confirm the address to anybody.
        steps.append(AnswerChallenge())
    steps += [
        BindQuery(target, trigger),
        BindPayload(target, trigger),
        CarryHeaders(trigger),
        ReadAccept(),
        ReadKey(trigger.path),
    ]
    return steps


def _end(context: ApiContext, target: Target, trigger: Http | Webhook) -> RouteEnd:
    if target.stream:
        return KeepRequest(context, target, trigger)
    return StreamRoute(context, target) if trigger.mode == "live" else CallRoute(context, target)
