"""`headrace explain pattern`: put an event to a pattern, here and now, and say what failed.

In: two JSON texts, or `@file` for either. Out: yes, or each failing leaf with what it met. No node is
asked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from headrace.cli.output import print_json
from headrace.patterns.pattern import why


def explain_pattern(pattern: str, event: str, *, as_json: bool) -> bool:
    """Print the verdict; whether the event matches.

    Raises:
        Invalid: The pattern is none.
        click.BadParameter: One of them is not JSON.
    """
    verdict = why(_read(pattern, "PATTERN"), _read(event, "EVENT"))
    if as_json:
        print_json({"matches": verdict.matches, "reasons": list(verdict.reasons)})
    elif verdict.matches:
        click.echo("the event matches the pattern")
    else:
        click.echo("the event does not match the pattern:")
        for reason in verdict.reasons:
            click.echo(f"  {reason}")
    return verdict.matches


def _read(text: str, what: str) -> Any:
    source = text
    if text.startswith("@"):
        try:
            source = Path(text[1:]).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise click.BadParameter(f"{what}: `{text[1:]}` cannot be read: {error}") from error
    try:
        return msgspec.json.decode(source)
    except msgspec.DecodeError as error:
        raise click.BadParameter(
            f"{what} is not JSON ({error}); write JSON in quotes, or `@file`"
        ) from error
