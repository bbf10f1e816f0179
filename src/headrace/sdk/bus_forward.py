"""Declarations of `App.forward`: a rule whose events go to a stream or an address, without a function."""

from __future__ import annotations

from typing import Any

from headrace.model.errors import Misuse
from headrace.model.triggers.bus import Forward, HttpTarget, Rule
from headrace.sdk.stream import Stream, check_name


def forward_of(
    app: str, rule: object, to: Stream[Any] | HttpTarget, name: str, place: str
) -> Forward:
    """The forward, checked.

    Raises:
        Misuse: It is not a rule, or there is no such target.
    """
    check_name(name, "a forward", place)
    where = f"{place}: forward `{app}.{name}`"
    if not isinstance(rule, Rule):
        raise Misuse(f"{where}: `{rule!r}` is not a rule; write `Rule({{...}})`")
    full = f"{app}.{name}"
    if isinstance(to, HttpTarget):
        return Forward(full, rule, http=to)
    if not isinstance(to, Stream):
        raise Misuse(f"{where}: `to={to!r}` is not a target; use a stream or `HttpTarget(url)`")
    if to.external:
        raise Misuse(
            f"{where}: stream `{to.name}` belongs to another app; let that app declare the forward"
        )
    return Forward(full, rule, stream=to.name)
