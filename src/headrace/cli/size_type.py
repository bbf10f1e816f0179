"""A size on the command line: `4096`, `64MiB`, `10MB`."""

from __future__ import annotations

from typing import Any

import click

from headrace.model.errors import Misuse
from headrace.model.sizes import bytes_in


class SizeType(click.ParamType[int]):
    """Bytes, from what is written as a size anywhere else.

    Args:
        low: Bytes at least.
        high: Bytes at most.
    """

    name = "size"

    def __init__(self, low: int, high: int) -> None:
        self._low = low
        self._high = high

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The bytes; a usage error says what can be written."""
        try:
            return bytes_in(value, "the value", low=self._low, high=self._high)
        except Misuse as error:
            self.fail(f"{error}", param, ctx)
