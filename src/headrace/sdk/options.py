"""The options of a function, checked when they are written: names, kinds, ranges, near misses.

In: what an author gave to `App.function`. Out: fields of a `FunctionSpec`. The errors name the
function, its file and line, and the fix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import UnionType
from typing import Any, Final, get_args, get_type_hints

from headrace.model.durations import seconds_in
from headrace.model.errors import Misuse
from headrace.model.function import FunctionSpec
from headrace.model.policy import MAX_BATCH, MAX_BATCH_BYTES
from headrace.sdk.source_location import near

SPEC_OPTIONS: Final = (
    "batch_size",
    "batch_bytes",
    "batch_window",
    "mode",
    "parallelism",
    "commit",
    "timeout",
    "retry",
    "bisect",
    "on_failure",
    "breaker",
    "scaling",
    "resources",
    "concurrency",
    "throttle",
    "rate",
    "debounce",
    "singleton",
    "priority",
    "batch_per_key",
    "changes",
)
TRIGGER_OPTIONS: Final = ("start", "merge", "lateness", "pattern")
OTHER_OPTIONS: Final = ("name", "output", "publishes", "secrets")

RANGES: Final[dict[str, tuple[int, int, str]]] = {
    "batch_size": (1, MAX_BATCH, f"use 1 to {MAX_BATCH:,}"),
    "batch_bytes": (1, MAX_BATCH_BYTES, f"use 1 to {MAX_BATCH_BYTES:,} bytes"),
    "parallelism": (1, 1_024, "use 1 to 1,024"),
}
SPANS: Final[dict[str, tuple[float, float]]] = {
    "batch_window": (0, 3_600),
    "timeout": (0.001, 86_400),
    "lateness": (0, 86_400),
}
_CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "mode": ("ordered", "keyed", "unordered"),
    "commit": ("after", "before"),
    "merge": ("none", "time"),
}
_KINDS = get_type_hints(FunctionSpec)


FUNCTION_OPTIONS: Final = SPEC_OPTIONS + TRIGGER_OPTIONS + OTHER_OPTIONS
STREAM_OPTIONS: Final = (
    "partitions",
    "value",
    "private",
    "retention_age",
    "retention_bytes",
    "cleanup",
    "dedupe_window",
    "max_event_bytes",
    "codec",
)
QUEUE_OPTIONS: Final = (
    *(name for name in STREAM_OPTIONS if name != "cleanup"),
    "visibility",
    "max_receives",
    "fifo",
    "delay",
    "outside",
)
EXTERNAL_OPTIONS: Final = ("value", "partitions", "codec")


def refuse_unknown(
    unknown: Mapping[str, object],
    place: str,
    what: str = "a function",
    known: Sequence[str] = FUNCTION_OPTIONS,
) -> None:
    """Pass, where no option is unknown.

    Raises:
        Misuse: With the options that look like it.
    """
    for name in unknown:
        raise Misuse(
            f"{place}: {what} has no option `{name}`{near(name, known)}; "
            f"the options are {', '.join(sorted(known))}"
        )


def check_options(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The options that were given, those left at None taken out; spans of time are seconds.

    Raises:
        Misuse: One is of the wrong kind or out of range.
    """
    found = {name: value for name, value in given.items() if value is not None}
    for name, value in found.items():
        if name in RANGES:
            low, high, fix = RANGES[name]
            if not isinstance(value, int) or isinstance(value, bool):
                raise Misuse(f"{where}: `{name}={value!r}` is not a whole number; {fix}")
            if not low <= value <= high:
                raise Misuse(f"{where}: `{name}={value!r}` is out of range; {fix}")
        elif name in SPANS:
            least, most = SPANS[name]
            found[name] = seconds_in(value, f"{where}: `{name}=`", low=least, high=most)
        elif name in _CHOICES:
            if value not in _CHOICES[name]:
                choices = _CHOICES[name]
                raise Misuse(
                    f"{where}: `{name}={value!r}` is unknown{near(str(value), choices)}; "
                    f"use {' or '.join(f'`{each}`' for each in choices)}"
                )
        elif name in {"bisect", "batch_per_key"}:
            if not isinstance(value, bool):
                raise Misuse(f"{where}: `{name}={value!r}` is not a yes or no; use True or False")
        elif name in SPEC_OPTIONS:
            _check_policy(name, value, where)
    _check_flow(found, where)
    if found.get("parallelism", 1) > 1 and found.get("mode", "ordered") == "ordered":
        raise Misuse(
            f"{where}: `parallelism={found['parallelism']}` needs events that may overtake each "
            'other; add `mode="keyed"` (order per key) or `mode="unordered"`'
        )
    if found.get("merge") == "time":
        _check_merge(found, where)
    return found


def _check_merge(found: dict[str, Any], where: str) -> None:
    """A merge is one order of all a partition's events: nothing in it may go by itself."""
    names = _per_key(found)
    if found.get("parallelism", 1) > 1:
        names.append("parallelism")
    if found.get("mode", "ordered") != "ordered":
        names.append("mode")
    if names:
        raise Misuse(
            f"{where}: `{names[0]}=` lets events overtake each other, and `merge=` puts them in one "
            "order; leave it out, or do that in a function behind this one"
        )


def _check_flow(found: dict[str, Any], where: str) -> None:
    """What tells keys apart needs lanes: such a function is `keyed` unless it says otherwise."""
    per_key = _per_key(found)
    if not per_key:
        return
    if found.setdefault("mode", "keyed") == "ordered":
        raise Misuse(
            f"{where}: `{per_key[0]}=` lets keys overtake each other, but the mode is `ordered`; "
            'use `mode="keyed"` (order per key) or `mode="unordered"`'
        )
    if found.get("commit") == "before":
        raise Misuse(
            f"{where}: `{per_key[0]}=` needs positions that move after the run; "
            'leave out `commit="before"`'
        )
    if found.get("debounce") and found.get("batch_window"):
        raise Misuse(
            f"{where}: `debounce=` and `batch_window=` both say how long to wait; use one of them"
        )


def _per_key(found: dict[str, Any]) -> list[str]:
    """The options that tell keys apart."""
    concurrency, throttle = found.get("concurrency"), found.get("throttle")
    names = [
        name for name in ("debounce", "singleton", "priority", "batch_per_key") if found.get(name)
    ]
    if concurrency is not None and concurrency.per_key is not None:
        names.append("concurrency")
    if throttle is not None and throttle.per_key:
        names.append("throttle")
    return names


def _check_policy(name: str, value: object, where: str) -> None:
    kind = _KINDS[name]
    kinds = get_args(kind) if isinstance(kind, UnionType) or get_args(kind) else (kind,)
    if not isinstance(value, kinds):
        names = [each.__name__ for each in kinds if each is not type(None)]
        instead = (
            f"`{name}={names[0]}(...)`"
            if len(names) == 1
            else " or ".join(f"`{n}()`" for n in names)
        )
        hint = " (it is a class; call it)" if isinstance(value, type) and value in kinds else ""
        raise Misuse(f"{where}: `{name}={value!r}` is not a policy{hint}; use {instead}")


def start_of(start: str | int | datetime, where: str) -> str:
    """Where a new consumer group begins, as the trigger writes it.

    Raises:
        Misuse: It is none of `earliest`, `latest`, an offset or an aware datetime.
    """
    if isinstance(start, datetime):
        if start.tzinfo is None:
            raise Misuse(
                f"{where}: `start={start!r}` has no time zone; add one, such as `tzinfo=UTC`"
            )
        return f"@{round(start.timestamp() * 1e6)}"
    if isinstance(start, int) and not isinstance(start, bool) and start >= 0:
        return str(start)
    if isinstance(start, str) and (start in {"earliest", "latest"} or start.isdecimal()):
        return start
    if isinstance(start, str) and start[:1] == "@" and start[1:].isdecimal():
        return start
    raise Misuse(
        f"{where}: `start={start!r}` is not a place to begin; use `earliest`, `latest`, an offset, "
        "or a datetime with a time zone"
    )
