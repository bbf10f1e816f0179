"""Least privilege, enforced in the host: what an instance wants to publish is looked at before it lands.

In: an outcome. Out: the same, or a failure of its events where an output is one that the log would
refuse or the function may not make. So a handler that publishes too much fails like any other, and
never halts its partition. It does not open payloads that are within their stream's size.
"""

from __future__ import annotations

from msgspec.structs import replace

from headrace.delivery.delays import Delays
from headrace.keepers.brokers.base import Broker
from headrace.keepers.brokers.intake import check_append
from headrace.model.errors import Invalid, Misuse, Refused, Unknown
from headrace.model.function import FunctionSpec
from headrace.model.outcome import Cause, Outcome, Returned
from headrace.model.record import Append


class Vetting:
    """One function's permission to publish. Shared by its pumps."""

    def __init__(self, spec: FunctionSpec, broker: Broker, delays: Delays | None = None) -> None:
        self._delays = delays
        self._app, self._name = spec.app, spec.name
        self._declared = frozenset(spec.publishes) | {spec.output or ""}
        self._broker = broker

    def __call__(self, outcome: Outcome) -> Outcome:
        """The outcome as it may land."""
        if not isinstance(outcome, Returned) or not outcome.appends:
            return outcome
        try:
            appends = tuple(part for append in outcome.appends for part in self._checked(append))
        except (Misuse, Refused, Invalid) as error:
            return Returned(error=Cause(type(error).__name__, str(error)), usage=outcome.usage)
        return outcome if appends == outcome.appends else replace(outcome, appends=appends)

    def _checked(self, append: Append) -> tuple[Append, ...]:
        spec = self._broker.stream(append.stream)
        if spec.owner != self._app and append.stream not in self._declared:
            raise Refused(
                f"`{self._name}` published to `{append.stream}`, which is not its app's; add "
                "`publishes=[...]` or `output=` to the function"
            )
        if not 0 <= append.partition < spec.partitions:
            raise Unknown(
                f"`{append.stream}` has no partition {append.partition}; it has {spec.partitions}"
            )
        if append.later:
            raise Refused(f"`{self._name}` named a row of the store, which no function may")
        check_append(append, spec)
        return (append,) if self._delays is None else self._delays.held_back(spec, append)
