"""Event patterns: which events a trigger or rule is about. Pure: a pattern and a value, yes or no.

The language is Amazon EventBridge's (EventBridge user guide, "Comparison operators"), judged as its
open-source engine, aws/event-ruler, does: an event is flattened to `path -> values`; a pattern names
paths and what one of their values must be; values that stand in different elements of one array do
not match together. A pattern that cannot hold is refused when it is compiled.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any, Final, NamedTuple

from headrace.model.errors import Invalid

Scalar = str | int | float | Decimal | bool | None
Test = Callable[[Scalar], bool]
Places = tuple[tuple[int, int], ...]

MAX_ALTERNATIVES: Final = 1_000
MAX_NUMBER: Final = 5_000_000_000
_NUMBER: Final = (int, float, Decimal)
_RESERVED: Final = frozenset(
    [
        "exactly",
        "prefix",
        "suffix",
        "equals-ignore-case",
        "anything-but",
        "numeric",
        "cidr",
        "exists",
        "wildcard",
    ]
)


class Value(NamedTuple):
    """A leaf of an event, and which element of which array it stands in."""

    value: Scalar
    places: Places


class Leaf(NamedTuple):
    """What one path must hold: a value that passes one of the tests, or nothing at all."""

    path: str
    tests: tuple[Test, ...]
    absent: bool


class Pattern:
    """A compiled pattern; `matches` may be called from anywhere."""

    def __init__(self, alternatives: tuple[tuple[Leaf, ...], ...]) -> None:
        self._alternatives = alternatives

    def matches(self, event: Any) -> bool:
        """Whether the (decoded JSON) event is meant."""
        if not isinstance(event, Mapping):
            return False
        fields = flatten(event)
        return any(_all_hold(leaves, fields) for leaves in self._alternatives)


def compile_pattern(pattern: Any) -> Pattern:
    """Check a pattern and make it ready.

    Raises:
        Invalid: It is not a pattern; the message names the path and the cause.
    """
    if not isinstance(pattern, Mapping):
        raise Invalid(f"a pattern is a JSON object, not {_kind(pattern)}")
    if not pattern:
        raise Invalid("an empty pattern matches nothing and everything; name at least one field")
    return Pattern(tuple(tuple(leaves) for leaves in _alternatives(pattern, "")))


# --- events ---------------------------------------------------------------------------------


def flatten(event: Mapping[str, Any]) -> dict[str, list[Value]]:
    """The event's leaves by dotted path; `a.b` in a name and `b` within `a` are the same path."""
    fields: dict[str, list[Value]] = {}
    counter = iter(range(1 << 30))
    _flatten(event, "", (), fields, counter)
    return fields


def _flatten(
    value: Any, path: str, places: Places, fields: dict[str, list[Value]], counter: Iterator[int]
) -> None:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _flatten(inner, f"{path}.{name}" if path else name, places, fields, counter)
    elif isinstance(value, list):
        array = next(counter)
        for index, inner in enumerate(value):
            _flatten(inner, path, (*places, (array, index)), fields, counter)
    else:
        fields.setdefault(path, []).append(Value(value, places))


def _all_hold(leaves: tuple[Leaf, ...], fields: dict[str, list[Value]]) -> bool:
    candidates: list[list[Places]] = []
    for leaf in leaves:
        values = fields.get(leaf.path)
        if values is None:
            if not leaf.absent:
                return False
            continue
        fitting = [v.places for v in values if any(test(v.value) for test in leaf.tests)]
        if not fitting:
            return False
        if () not in fitting:
            candidates.append(fitting)
    return len(candidates) < 2 or _consistent(candidates, 0, {})


def _consistent(candidates: list[list[Places]], at: int, chosen: dict[int, int]) -> bool:
    """Whether one value per path can be chosen so that no array gives two elements."""
    if at == len(candidates):
        return True
    for places in dict.fromkeys(candidates[at]):
        if all(chosen.get(array, index) == index for array, index in places) and _consistent(
            candidates, at + 1, chosen | dict(places)
        ):
            return True
    return False


# --- patterns -------------------------------------------------------------------------------


def _alternatives(pattern: Mapping[str, Any], path: str) -> list[list[Leaf]]:
    """The pattern as a choice of conjunctions."""
    found: list[list[Leaf]] = [[]]
    for name, wanted in pattern.items():
        here = f"{path}.{name}" if path else name
        if name == "$or" and _is_choice(wanted):
            options = [more for one in wanted for more in _alternatives(one, path)]
        elif isinstance(wanted, Mapping):
            if not wanted:
                raise Invalid(f"`{here}`: an empty object matches nothing")
            options = _alternatives(wanted, here)
        elif isinstance(wanted, list):
            options = [[_leaf(here, wanted)]]
        else:
            raise Invalid(f"`{here}` must be an object or an array, not {_kind(wanted)}")
        # A path named twice (beside `$or` and within it) means what was said last.
        found = [
            list({leaf.path: leaf for leaf in (*left, *right)}.values())
            for left in found
            for right in options
        ]
        if len(found) > MAX_ALTERNATIVES:
            raise Invalid(f"`{here}`: more than {MAX_ALTERNATIVES} combinations of `$or`")
    return found


def _is_choice(wanted: Any) -> bool:
    """Whether `$or` is the operator: two or more objects, none of which is a single test."""
    return (
        isinstance(wanted, list)
        and len(wanted) > 1
        and all(isinstance(one, Mapping) and one for one in wanted)
        and not any(_RESERVED & set(one) for one in wanted)
    )


def _leaf(path: str, wanted: list[Any]) -> Leaf:
    if not wanted:
        raise Invalid(f"`{path}`: empty arrays are not allowed")
    tests: list[Test] = []
    absent = False
    for one in wanted:
        if isinstance(one, Mapping):
            name, operand = _single(path, one)
            if name == "exists":
                if not isinstance(operand, bool):
                    raise Invalid(f"`{path}`: `exists` takes true or false")
                absent = absent or not operand
                if operand:
                    tests.append(_anything)
                continue
            tests.append(_operator(path, name, operand))
        elif isinstance(one, list):
            raise Invalid(f"`{path}`: an array holds values and tests, not arrays")
        else:
            tests.append(_equal_to(one))
    return Leaf(path, tuple(tests), absent)


def _single(path: str, one: Mapping[str, Any]) -> tuple[str, Any]:
    if len(one) != 1:
        raise Invalid(f"`{path}`: only one key is allowed in a test, not {len(one)}")
    return next(iter(one.items()))


def _operator(path: str, name: str, operand: Any) -> Test:
    match name:
        case "prefix" | "suffix":
            return _affix(path, name, operand)
        case "exactly":
            return _equal_to(_text(path, name, operand))
        case "equals-ignore-case":
            return _ignoring_case(_text(path, name, operand))
        case "wildcard":
            return _wildcard(path, _text(path, name, operand))
        case "numeric":
            return _numeric(path, operand)
        case "cidr":
            return _cidr(path, _text(path, name, operand))
        case "anything-but":
            return _anything_but(path, operand)
        case _:
            known = ", ".join(f"`{word}`" for word in sorted(_RESERVED))
            raise Invalid(f"`{path}`: there is no test `{name}`; there are {known}")


def _text(path: str, name: str, operand: Any) -> str:
    if not isinstance(operand, str):
        raise Invalid(f"`{path}`: `{name}` takes a string, not {_kind(operand)}")
    return operand


def _anything(_: Scalar) -> bool:
    return True


def _is_number(value: Any) -> bool:
    return isinstance(value, _NUMBER) and not isinstance(value, bool)


def _equal_to(wanted: Scalar) -> Test:
    if _is_number(wanted):
        return lambda value: _is_number(value) and value == wanted
    kind = type(wanted)
    return lambda value: type(value) is kind and value == wanted


def _affix(path: str, name: str, operand: Any) -> Test:
    ignoring = False
    if isinstance(operand, Mapping):
        inner, operand = _single(path, operand)
        if inner != "equals-ignore-case":
            raise Invalid(f"`{path}`: unsupported {name} pattern `{inner}`")
        ignoring = True
    text = _text(path, name, operand)
    if ignoring:
        text = text.lower()
    if name == "prefix":
        if ignoring:
            return lambda value: isinstance(value, str) and value.lower().startswith(text)
        return lambda value: isinstance(value, str) and value.startswith(text)
    if ignoring:
        return lambda value: isinstance(value, str) and value.lower().endswith(text)
    return lambda value: isinstance(value, str) and value.endswith(text)


def _ignoring_case(text: str) -> Test:
    wanted = text.lower()
    return lambda value: isinstance(value, str) and value.lower() == wanted


def _wildcard(path: str, text: str) -> Test:
    """`*` stands for any characters; a backslash makes `*` or a backslash ordinary."""
    parts: list[str] = []
    index = 0
    star = False
    while index < len(text):
        char = text[index]
        if char == "\\":
            index += 1
            if index == len(text) or text[index] not in "*\\":
                raise Invalid(f"`{path}`: invalid escape character at position {index - 1}")
            parts.append(re.escape(text[index]))
            star = False
        elif char == "*":
            if star:
                raise Invalid(f"`{path}`: consecutive wildcard characters at position {index - 1}")
            parts.append(".*")
            star = True
        else:
            parts.append(re.escape(char))
            star = False
        index += 1
    fits = re.compile("".join(parts), re.DOTALL).fullmatch
    return lambda value: isinstance(value, str) and fits(value) is not None


_COMPARISONS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "=": lambda a, b: a == b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def _numeric(path: str, operand: Any) -> Test:
    if not isinstance(operand, list):
        raise Invalid(f"`{path}`: the value of `numeric` must be an array, not {_kind(operand)}")
    if len(operand) not in {2, 4}:
        raise Invalid(
            f'`{path}`: `numeric` takes one comparison or a range, such as [">", 0, "<=", 5]'
        )
    pairs = [(operand[i], operand[i + 1]) for i in range(0, len(operand), 2)]
    for sign, bound in pairs:
        if sign not in _COMPARISONS:
            raise Invalid(f"`{path}`: unrecognised numeric operator `{sign}`")
        if not _is_number(bound) or abs(bound) > MAX_NUMBER:
            raise Invalid(f"`{path}`: `{bound}` is not a number from -{MAX_NUMBER} to {MAX_NUMBER}")
    if len(pairs) == 2:
        (low_sign, low), (high_sign, high) = pairs
        if not (low_sign.startswith(">") and high_sign.startswith("<")):
            raise Invalid(
                f'`{path}`: a numeric range is written lower bound first, [">", 0, "<", 5]'
            )
        if low >= high:
            raise Invalid(f"`{path}`: the numeric range from {low} to {high} holds nothing")
    tests = [(_COMPARISONS[sign], bound) for sign, bound in pairs]
    return lambda value: _is_number(value) and all(test(value, bound) for test, bound in tests)


def _cidr(path: str, text: str) -> Test:
    address, slash, bits = text.partition("/")
    if not slash or "/" in bits:
        raise Invalid(f"`{path}`: malformed CIDR `{text}`, one '/' is required")
    if not bits.isdigit():
        raise Invalid(f"`{path}`: malformed CIDR `{text}`, the mask bits must be an integer")
    try:
        network = ipaddress.ip_network(f"{address}/{bits}", strict=False)
    except ValueError as error:
        raise Invalid(f"`{path}`: malformed CIDR `{text}`: {error}") from error

    def test(value: Scalar) -> bool:
        if not isinstance(value, str):
            return False
        try:
            return ipaddress.ip_address(value) in network
        except ValueError:
            return False

    return test


def _anything_but(path: str, operand: Any) -> Test:
    if isinstance(operand, Mapping):
        name, inner = _single(path, operand)
        if name not in {"prefix", "suffix", "equals-ignore-case", "wildcard"}:
            raise Invalid(f"`{path}`: unsupported anything-but pattern `{name}`")
        many = inner if isinstance(inner, list) else [inner]
        if not many:
            raise Invalid(f"`{path}`: empty lists are not allowed in `anything-but`")
        if name in {"prefix", "suffix"} and any(isinstance(one, Mapping) for one in many):
            raise Invalid(f"`{path}`: inside anything-but/{name} only strings are allowed")
        if name in {"prefix", "suffix"} and "" in many:
            raise Invalid(f"`{path}`: an empty {name} is not allowed in `anything-but`")
        refused = [_operator(path, name, one) for one in many]
        return lambda value: not any(test(value) for test in refused)
    many = operand if isinstance(operand, list) else [operand]
    if not many:
        raise Invalid(f"`{path}`: empty lists are not allowed in `anything-but`")
    kinds = {_kind(one) for one in many}
    if not kinds <= {"a string"} and not kinds <= {"a number"}:
        raise Invalid(
            f"`{path}`: `anything-but` takes strings, or numbers, not {', '.join(sorted(kinds))}"
        )
    refused = [_equal_to(one) for one in many]
    return lambda value: not any(test(value) for test in refused)


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case str():
            return "a string"
        case int() | float() | Decimal():
            return "a number"
        case list():
            return "an array"
        case Mapping():
            return "an object"
        case _:
            return type(value).__name__
