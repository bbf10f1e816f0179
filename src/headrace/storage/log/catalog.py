"""The names and descriptions of streams: what may be called what, and what may change. Pure.

Shared by every driver, so that a stream that one accepts is accepted by all.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

import msgspec

from headrace.model.errors import Misuse, Unknown
from headrace.model.function import StreamSpec
from headrace.model.policy import MAX_NAME

MAX_PARTITIONS = 4_096
# `\Z`, not `$`, which also matches before a final newline.
_name = re.compile(r"[A-Za-z0-9._-]+\Z")


def check_spec(spec: StreamSpec) -> None:
    """Let a description pass.

    Raises:
        Misuse: Its name, its number of partitions or a limit cannot be.
    """
    if not 1 <= len(spec.name) <= MAX_NAME or _name.match(spec.name) is None:
        raise Misuse(
            f"`{spec.name[:MAX_NAME]}` cannot name a stream; "
            f"use 1 to {MAX_NAME} of the characters A-Z a-z 0-9 . _ -"
        )
    if not 1 <= spec.partitions <= MAX_PARTITIONS:
        raise Misuse(
            f"the stream `{spec.name}` cannot have {spec.partitions} partitions; "
            f"use 1 to {MAX_PARTITIONS}"
        )
    for setting in ("retention_age", "retention_bytes", "dedupe_window", "max_event_bytes"):
        value = getattr(spec, setting)
        if value is not None and value < 0:
            raise Misuse(f"the stream `{spec.name}` has `{setting}={value}`; use 0 or more")


def redeclare(known: StreamSpec, wanted: StreamSpec) -> StreamSpec:
    """The description a known stream has from now on.

    Raises:
        Misuse: Something that is fixed would change.
    """
    # A key's partition is its hash modulo their number: with another number, events of one key
    # would be in two partitions, and out of order.
    for setting in ("partitions", "owner", "cleanup"):
        before, after = getattr(known, setting), getattr(wanted, setting)
        if before != after:
            raise Misuse(
                f"the stream `{known.name}` exists with `{setting}={before!r}`, which is fixed; "
                f"keep it, or give the stream with `{setting}={after!r}` another name"
            )
    return msgspec.structs.replace(wanted)


def unknown_stream(name: str, known: Iterable[str]) -> Unknown:
    """The error for a stream that does not exist, with near names."""
    # Streams of the platform begin with `_` and are not suggested: apps do not declare them.
    near = difflib.get_close_matches(name, [each for each in known if each[:1] != "_"], n=3)
    hint = " or ".join(f"`{each}`" for each in near)
    return Unknown(
        f"there is no stream `{name}`; "
        + (
            f"did you mean {hint}?"
            if hint
            else "an app declares it with `app.stream(...)`, and `headrace list` shows all"
        )
    )


def unknown_partition(name: str, partition: int, partitions: int) -> Unknown:
    """The error for a partition that does not exist."""
    return Unknown(
        f"the stream `{name}` has no partition {partition}; its partitions are 0 to {partitions - 1}"
    )
