"""Overrides of functions and streams by an operator: checked, then merged with the declarations.

Comes in: a name and a table of values as read from a file or a variable. Goes out: a description
with those values replaced. Nested policies are merged key by key, so that `retry = {attempts = 3}`
keeps the author's delays. Refuses keys an operator may not touch (names, triggers, partitions).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from headrace.model.errors import Misuse
from headrace.model.function import FunctionSpec, StreamSpec
from headrace.model.options import OptionRow, option_rows
from headrace.model.settings import variable_form
from headrace.model.triggers.base import StreamTrigger
from headrace.node.settings_file import choices, nearest

Spec = TypeVar("Spec", FunctionSpec, StreamSpec)
Where = Callable[..., str]

FUNCTION_KEYS = tuple(
    name for name, row in option_rows(FunctionSpec).items() if not row.about.fixed
)
STREAM_KEYS = tuple(name for name, row in option_rows(StreamSpec).items() if not row.about.fixed)


class Override(msgspec.Struct, frozen=True):
    """Values for whatever is called `name`.

    Attributes:
        name: The full name, or its form in a variable (`SHOP_PRICE` for `shop.price`).
        values: The values to replace.
        where: The file and line or the variable it was read from.
        from_text: Whether it came from a variable, whose values are all text.
    """

    name: str
    values: dict[str, Any]
    where: str
    from_text: bool = False

    def matches(self, name: str) -> bool:
        """Return whether this is about `name`."""
        if not self.from_text:
            return self.name == name
        return variable_form(name) == self.name.upper()


def checked(
    like: type[FunctionSpec] | type[StreamSpec],
    name: str,
    values: dict[str, Any],
    where: Where,
    *,
    from_text: bool = False,
) -> Override:
    """An override whose keys are known and whose values can hold by themselves.

    Raises:
        Misuse: A key is unknown or a value cannot be.
    """
    keys = FUNCTION_KEYS if like is FunctionSpec else STREAM_KEYS
    kind = "function" if like is FunctionSpec else "stream"
    for key in values:
        if key not in keys:
            raise Misuse(
                f"{where(key)}: `{key}` of {kind} `{name}` cannot be overridden"
                f"{nearest(key, keys)}; what can are {', '.join(f'`{known}`' for known in keys)}"
            )
        _known_inside(option_rows(like)[key], values[key], where)
    override = Override(name, values, where(), from_text)
    if like is FunctionSpec:
        merged(FunctionSpec(name=name, app=""), override, where)
    else:
        merged(StreamSpec(name=name), override, where)
    return override


def apply_overrides(spec: Spec, overrides: Sequence[Override]) -> Spec:
    """The description with every override that is about it, the last one winning.

    Raises:
        Misuse: The result cannot hold.
    """
    last = ""
    for override in overrides:
        if override.matches(spec.name):
            spec = merged(spec, override, functools.partial(_place, override))
            last = override.where
    if last and isinstance(spec, FunctionSpec):
        _check_together(spec, last)
    return spec


def _place(override: Override, *_: str) -> str:
    return override.where


def merged(spec: Spec, override: Override, where: Where) -> Spec:
    """The description with the override's values in place of its own.

    Raises:
        Misuse: A value is of the wrong type, or a policy cannot hold.
    """
    rows = option_rows(type(spec))
    whole: dict[str, Any] = msgspec.to_builtins(spec)
    for key, value in override.values.items():
        try:
            whole[key] = _merged_value(rows[key], whole.get(key), value)
            msgspec.convert(whole, type(spec), strict=not override.from_text)
        except (msgspec.ValidationError, Misuse) as error:
            reason = choices(rows[key].kind, value) or str(error).split(" - at ")[0]
            raise Misuse(
                f"{where(key)}: `{key} = {value!r}` of `{spec.name}` cannot be: {reason}"
            ) from error
    result = msgspec.convert(whole, type(spec), strict=not override.from_text)
    _check(result, where)
    return result


def _merged_value(row: OptionRow, old: Any, new: Any) -> Any:
    if (row.optional and new in ("none", "null")) or (row.turns_off and new in (False, "false")):
        return None
    if isinstance(new, str) and any(policy.__struct_config__.tag == new for policy in row.policies):
        return {"type": new}
    number = row.number(new, "it")
    if number is not None:
        return number
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **new}
    return new


def _known_inside(row: OptionRow, value: Any, where: Where) -> None:
    if not isinstance(value, dict):
        return
    known = {
        name
        for policy in row.policies
        for name in (
            *policy.__struct_fields__,
            *(("type",) if policy.__struct_config__.tag else ()),
        )
    }
    for name in value:
        if name not in known:
            raise Misuse(
                f"{where(row.name, name)}: `{name}` is unknown in `{row.name}`{nearest(name, known)}; "
                f"known are {', '.join(f'`{part}`' for part in sorted(known))}"
            )


def _check(spec: FunctionSpec | StreamSpec, where: Where) -> None:
    for key, row in option_rows(type(spec)).items():
        value = getattr(spec, key)
        if row.kind is int and value is not None and not row.in_range(value):
            none = ', or "none"' if row.optional else ""
            raise Misuse(
                f"{where(key)}: `{key} = {value}` of `{spec.name}` is out of range; use {row.range}{none}"
            )


def _check_together(spec: FunctionSpec, where: str) -> None:
    """Refuse what an author would be refused, instead of leaving it out in silence."""
    overtakes = spec.parallelism > 1 or spec.has_lane_rules
    merges = any(
        isinstance(trigger, StreamTrigger) and trigger.merge != "none" for trigger in spec.triggers
    )
    if merges and (overtakes or spec.order != "partition"):
        raise Misuse(
            f"{where}: `{spec.name}` merges streams into one order; leave out `order`, `parallelism` and "
            "flow control per key"
        )
    if overtakes and spec.order == "partition":
        raise Misuse(
            f"{where}: `{spec.name}` would let events overtake each other, but its order is `partition`; "
            'set `order = "key"` (order per key) or `order = "none"` too'
        )
    if spec.has_lane_rules and spec.commit == "before":
        raise Misuse(
            f"{where}: flow control per key of `{spec.name}` needs positions that move after the run; "
            'leave out `commit = "before"`'
        )
