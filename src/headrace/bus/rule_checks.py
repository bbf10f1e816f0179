"""Checks of an app's rules before anything runs: at a deployment, and by `validate`. Pure."""

from __future__ import annotations

from headrace.bus.transform import transform_of
from headrace.model.errors import Misuse
from headrace.model.function import AppSpec
from headrace.model.triggers.bus import Rule
from headrace.patterns.pattern import compile_pattern


def rules_of(app: AppSpec) -> list[tuple[str, Rule]]:
    """Its rules, with the names of the functions and forwards they belong to."""
    found = [
        (function.name, trigger)
        for function in app.functions
        for trigger in function.triggers
        if isinstance(trigger, Rule)
    ]
    return found + [(forward.name, forward.rule) for forward in app.forwards]


def check_rules(app: AppSpec) -> None:
    """Pass, where every rule can be read and no forward leads back to what it watches.

    Raises:
        Misuse: One cannot work; the message names it.
    """
    for name, rule in rules_of(app):
        try:
            compile_pattern(rule.pattern)
            transform_of(rule)
        except Misuse as error:
            raise Misuse(f"the rule of `{name}`: {error}") from error
    for forward in app.forwards:
        # The shortest cycle, and never meant. Longer ones may be: those are stopped by the limit
        # of hops.
        if forward.stream in forward.rule.watched:
            raise Misuse(
                f"forward `{forward.name}` leads from `{forward.stream}` back to it; send its "
                "events to another stream"
            )
