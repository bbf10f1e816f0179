"""Options of `App.function`, `stream`, `queue` and `window`, checked against the table of options.

In: options as they were given. Out: fields of a spec. The errors name the function or stream, its file
and line, and the fix. The rows are those of `model/function_options.py` and of the fields of
`FunctionSpec`, `StreamTrigger`, `StreamSpec` and `QueueSpec`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from headrace.model.durations import Duration
from headrace.model.errors import Misuse
from headrace.model.former_names import MOVED
from headrace.model.function import FunctionSpec, QueueSpec, StreamSpec
from headrace.model.function_options import FunctionOptions, GivenOptions
from headrace.model.near_names import near
from headrace.model.options import OptionRow, option_rows
from headrace.model.triggers.base import MergeMode, StreamTrigger
from headrace.model.webhook_signature import Secret
from headrace.sdk.stream import Stream

SOURCE_OPTIONS: Final = {
    name: row
    for name, row in option_rows(StreamTrigger).items()
    if name in {"start", "pattern", "changes"}
}
"""Options of `Stream.read`: how a function reads one stream."""
MERGE_OPTIONS: Final = {
    name: row for name, row in option_rows(StreamTrigger).items() if name not in SOURCE_OPTIONS
}
FUNCTION_OPTIONS: Final = {**option_rows(FunctionSpec), **MERGE_OPTIONS}
STREAM_OPTIONS: Final = option_rows(StreamSpec)
QUEUE_OPTIONS: Final = {
    **{name: row for name, row in STREAM_OPTIONS.items() if name != "cleanup"},
    **option_rows(QueueSpec),
}
EXTERNAL_OPTIONS: Final = ("value", "partitions", "codec")


class WindowSettings(GivenOptions, total=False):
    """Options of `App.window` that `App.function` has too, as an author gives them."""

    name: str | None
    publishes: Sequence[Stream[Any]]
    secrets: Sequence[str | Secret]


class ReaderSettings(WindowSettings, total=False):
    """Options of `App.function` besides its `output`, as an author gives them."""

    merge: MergeMode | None
    idle_timeout: Duration | None


class FunctionSettings(ReaderSettings, total=False):
    """Options of `App.function`, as an author gives them; `FUNCTION_OPTIONS` says what each means."""

    output: Stream[Any] | None


def refuse_unknown(
    given: Iterable[str], place: str, what: str, known: Iterable[str], *more: str
) -> None:
    """Pass, where every option is known.

    Raises:
        Misuse: With the options that look like it.
    """
    names = sorted((*known, *more))
    for name in given:
        if name not in names:
            if name in MOVED and "order" in names:
                raise Misuse(f"{place}: {what} has no option `{name}`; write {MOVED[name]}")
            raise Misuse(
                f"{place}: {what} has no option `{name}`{near(name, names)}; "
                f"the options are {', '.join(names)}"
            )


def check_options(
    rows: Mapping[str, OptionRow], given: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """The options that were given, of those in `rows`; durations are seconds.

    One left at None is left out, unless None turns off what is on by default (`breaker`). Names,
    streams and patterns are judged elsewhere, where what they name is known.

    Raises:
        Misuse: One is of the wrong kind or out of range.
    """
    return {
        name: _checked(row, given[name], where)
        for name, row in rows.items()
        if name in given and (given[name] is not None or row.turns_off)
    }


def _checked(row: OptionRow, value: Any, where: str) -> Any:
    if value is None:
        return None
    written = f"{where}: `{row.name}={value!r}`"
    number = row.number(value, f"{where}: `{row.name}=`")
    if number is not None:
        return number
    if row.kind is int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise Misuse(f"{written} is not a whole number; use {row.range}")
        if not row.in_range(value):
            raise Misuse(f"{written} is out of range; use {row.range}")
    elif row.kind is bool:
        if not isinstance(value, bool):
            raise Misuse(f"{written} is not a yes or no; use True or False")
    elif row.choices:
        if value not in row.choices:
            raise Misuse(
                f"{written} is unknown{near(str(value), row.choices)}; "
                f"use {' or '.join(f'`{each}`' for each in row.choices)}"
            )
    elif row.policies and not isinstance(value, row.policies):
        names = [policy.__name__ for policy in row.policies]
        instead = (
            f"`{row.name}={names[0]}(...)`"
            if len(names) == 1
            else " or ".join(f"`{name}()`" for name in names)
        )
        hint = (
            " (it is a class; call it)" if isinstance(value, type) and value in row.policies else ""
        )
        raise Misuse(f"{written} is not a policy{hint}; use {instead}")
    return value


def check_function_options(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The options of a function that were given: each by itself, then those that exclude each other.

    Raises:
        Misuse: One is of the wrong kind or out of range, or two cannot hold together.
    """
    found = check_options(FUNCTION_OPTIONS, given, where)
    rows = option_rows(FunctionOptions)
    per_key = FunctionOptions(**{name: found[name] for name in rows if name in found}).per_key
    if per_key:
        _check_per_key(per_key[0], found, where)
    if found.get("parallelism", 1) > 1 and found.get("order", "partition") == "partition":
        raise Misuse(
            f"{where}: `parallelism={found['parallelism']}` needs events that may overtake each "
            'other; add `order="key"` (order per key) or `order="none"`'
        )
    if found.get("merge") == "time":
        _check_merge(per_key, found, where)
    return found


def _check_merge(per_key: Sequence[str], found: dict[str, Any], where: str) -> None:
    """A merge is one order of all a partition's events: nothing in it may go by itself."""
    names = list(per_key)
    if found.get("parallelism", 1) > 1:
        names.append("parallelism")
    if found.get("order", "partition") != "partition":
        names.append("order")
    if names:
        raise Misuse(
            f"{where}: `{names[0]}=` lets events overtake each other, and `merge=` puts them in one "
            "order; leave it out, or do that in a function behind this one"
        )


def _check_per_key(option: str, found: dict[str, Any], where: str) -> None:
    """Require lanes where keys are distinguished: such a function has `order="key"` unless it says otherwise."""
    if found.setdefault("order", "key") == "partition":
        raise Misuse(
            f"{where}: `{option}=` lets keys overtake each other, but the order is `partition`; "
            'use `order="key"` (order per key) or `order="none"`'
        )
    if found.get("commit") == "before":
        raise Misuse(
            f"{where}: `{option}=` needs positions that move after the run; "
            'leave out `commit="before"`'
        )
    if found.get("debounce") and found.get("batch_window"):
        raise Misuse(
            f"{where}: `debounce=` and `batch_window=` both say how long to wait; use one of them"
        )


def source_options(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Check what was given to `Stream.read`; fields of the trigger.

    Raises:
        Misuse: It is of the wrong kind, or not a place to begin.
    """
    found = check_options(SOURCE_OPTIONS, given, where)
    if "start" in found:
        found["start"] = start_of(found["start"], where)
    if not isinstance(found.get("pattern", {}), dict):
        raise Misuse(f"{where}: `pattern={found['pattern']!r}` is not a dict of what must match")
    return found


def start_of(start: str | int | datetime, where: str) -> str:
    """Start of a new consumer group, as the trigger writes it.

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
