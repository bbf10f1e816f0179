"""A duration on the command line: `30`, `90s`, `1h30m`."""

from __future__ import annotations

from typing import Any

import click

from headrace.model.durations import seconds_in
from headrace.model.errors import Misuse


class DurationType(click.ParamType[float]):
    """Seconds, from what is written as a duration anywhere else.

    Args:
        low: Seconds at least.
        high: Seconds at most.
    """

    name = "span"

    def __init__(self, low: float, high: float) -> None:
        self._low = low
        self._high = high

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The seconds; a usage error says what can be written."""
        try:
            return seconds_in(value, "the value", low=self._low, high=self._high)
        except Misuse as error:
            self.fail(f"{error}", param, ctx)
