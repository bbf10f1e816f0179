"""Checks in the host of what an instance publishes and stores, before it is committed.

In: an outcome. Out: the same, or a failure of its events if the log would refuse an output, the function may not
publish it, or a store belongs to another app. So a handler that publishes too much fails like any other, and never
halts its partition. Payloads within their stream's size are not decoded.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from headrace.delivery.commit.delayed_appends import DelayedAppends
from headrace.model.errors import Invalid, Misuse, Refused, Unknown, is_final
from headrace.model.function import FunctionSpec
from headrace.model.invocation import Invocation
from headrace.model.outcome import Cause, Outcome, Returned
from headrace.model.record import Append
from headrace.model.stores import check_stores
from headrace.runtime.base import Interceptor, Run, Submit, Waiter
from headrace.storage.log.append_checks import check_append
from headrace.storage.log.base import Broker
from headrace.telemetry.history import RunHistory


class CheckedWaiter(msgspec.Struct, eq=False):
    """Implements `runtime.base.Waiter`, in front of the submitter's waiter."""

    waiter: Waiter
    checks: PublishChecks
    spec: FunctionSpec | None

    def done(self) -> bool:
        """Return whether the outcome is not needed any more."""
        return self.waiter.done()

    def set_exception(self, exception: BaseException, /) -> None:
        """Pass an error on: the run could not start."""
        self.waiter.set_exception(exception)

    def set_result(self, outcome: Outcome, /) -> None:
        """Check an outcome and pass it on."""
        returned = outcome.returned
        if returned is not None and (returned.appends or returned.writes or returned.reads):
            try:
                outcome = _checked_by(self.checks, self.spec, returned)
            except Exception as error:  # noqa: BLE001 - reported to the waiter, not to the caller
                self.waiter.set_exception(error)
                return
        self.waiter.set_result(outcome)


def _checked_by(checks: PublishChecks, spec: FunctionSpec | None, outcome: Returned) -> Returned:
    if spec is None:
        cause = Cause(
            "Refused", "a function that is not deployed here may publish and store nothing"
        )
        return Returned(error=cause, usage=outcome.usage)
    return checks(spec, outcome)


class PublishChecks:
    """Checks of every function's permission to publish and to store. One per node, for everything that commits outcomes.

    Published streams are reported to `runs`, since all outputs pass here.
    """

    def __init__(self, broker: Broker, delays: DelayedAppends, runs: RunHistory) -> None:
        self._broker = broker
        self._delays = delays
        self._runs = runs

    def intercept(self, spec_of: Callable[[str], FunctionSpec | None]) -> Interceptor:
        """Return the interceptor that checks the outcome of every run before its submitter gets it.

        Args:
            spec_of: Returns a function by its name, at the time a run is submitted.
        """

        def intercepting(below: Submit) -> Submit:
            def submit(invocation: Invocation, done: Waiter, after: Run | None = None, /) -> Run:
                # At the start, not at the end: the version that ran decides what it may publish.
                spec = spec_of(invocation.function)
                return below(invocation, CheckedWaiter(done, self, spec), after)

            return submit

        return intercepting

    def __call__(self, spec: FunctionSpec, outcome: Returned) -> Returned:
        """Return the outcome of a run of this function, with what may be committed of it."""
        try:
            if outcome.reads or outcome.writes:
                check_stores(spec, outcome.reads, outcome.writes)
            if not outcome.appends:
                return outcome
            appends = tuple(
                part for append in outcome.appends for part in self._checked(spec, append)
            )
        except (Misuse, Refused, Invalid) as error:
            cause = Cause(type(error).__name__, str(error), retryable=not is_final(error))
            return Returned(error=cause, usage=outcome.usage)
        self._runs.published(spec.name, (append.stream for append in outcome.appends))
        return outcome if appends == outcome.appends else replace(outcome, appends=appends)

    def _checked(self, function: FunctionSpec, append: Append) -> tuple[Append, ...]:
        name, stream = function.name, self._broker.stream(append.stream)
        declared = append.stream in function.publishes or append.stream == function.output
        if stream.owner != function.app and not declared:
            raise Refused(
                f"`{name}` published to `{append.stream}`, which is not its app's; add "
                "`publishes=[...]` or `output=` to the function"
            )
        # The platform's own apps route events for others: a rule appends to streams that are
        # private to the app of its target function.
        routed = function.app.startswith("_")
        if stream.private and not routed and stream.owner not in {"", function.app}:
            raise Refused(
                f"`{name}` published to `{append.stream}`, which is private to app `{stream.owner}`"
            )
        if not 0 <= append.partition < stream.partitions:
            raise Unknown(
                f"`{append.stream}` has no partition {append.partition}; it has {stream.partitions}"
            )
        # The row's name comes from the host: an instance could otherwise overwrite rows of other
        # queues.
        if append.later:
            raise Refused(f"`{name}` named a row of the store, which no function may")
        check_append(append, stream)
        return tuple(part for part, _ in self._delays.split(stream, append))
