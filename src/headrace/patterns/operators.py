"""The tests a pattern puts to one value: `prefix`, `numeric`, `anything-but` and their kin. Pure.

In: what stands in a pattern's array. Out: a `Term`, which checks a value and describes its check, so
that an index can find it without running it. What cannot hold is refused here, with path and cause.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final, Literal, NamedTuple

from headrace.model.errors import Invalid

Scalar = str | int | float | Decimal | bool | None
Number = int | float | Decimal
Test = Callable[[Scalar], bool]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Kind = Literal[
    "text",
    "number",
    "constant",
    "text-i",
    "prefix",
    "prefix-i",
    "suffix",
    "suffix-i",
    "wildcard",
    "interval",
    "cidr",
    "present",
    "but",
]

# The bound that EventBridge documents for numeric matching.
MAX_NUMBER: Final = 5_000_000_000
RESERVED: Final = frozenset(
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
_NUMBER: Final = (int, float, Decimal)


class Interval(NamedTuple):
    """Numbers from `low` to `high`; a bound that is not `closed` is itself left out."""

    low: Number
    low_closed: bool
    high: Number
    high_closed: bool


class Term(NamedTuple):
    """One test.

    Attributes:
        kind: How it judges; `-i` forms hold their operand in lower case.
        operand: What it compares with: a text, a number, the literal pieces of a wildcard, an
            `Interval`, a network. Equal kinds and operands are equal tests.
        test: The judgement itself.
        fits: The same for what is known to be a text, where that is quicker.
    """

    kind: Kind
    operand: Any
    test: Test
    fits: Callable[[str], object] | None = None


def anything(_: Scalar) -> bool:
    """Every leaf will do."""
    return True


PRESENT: Final = Term("present", None, anything)


def equal_to(wanted: Scalar) -> Term:
    """The value itself; 1 is 1.0, and neither is true."""
    # `True == 1` in Python, not in JSON: `is_number` leaves booleans out.
    if is_number(wanted):
        return Term("number", wanted, lambda value: is_number(value) and value == wanted)
    kind = type(wanted)
    name: Kind = "text" if kind is str else "constant"
    # By exact type, for the same reason: `1 == True` and `0 == False` must not hold.
    return Term(name, wanted, lambda value: type(value) is kind and value == wanted)


def operator(path: str, name: str, operand: Any) -> Term:
    """The test `{name: operand}`, `exists` aside.

    Raises:
        Invalid: There is no such test, or its operand cannot be.
    """
    match name:
        case "prefix" | "suffix":
            return _affix(path, name, operand)
        case "exactly":
            return equal_to(_text(path, name, operand))
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
            known = ", ".join(f"`{word}`" for word in sorted(RESERVED))
            raise Invalid(f"`{path}`: there is no test `{name}`; there are {known}")


def single(path: str, one: Mapping[str, Any]) -> tuple[str, Any]:
    """The name and operand of a test.

    Raises:
        Invalid: It is not one.
    """
    if len(one) != 1:
        raise Invalid(f"`{path}`: only one key is allowed in a test, not {len(one)}")
    return next(iter(one.items()))


def is_number(value: Any) -> bool:
    """Return whether it is a number; true and false are none."""
    return isinstance(value, _NUMBER) and not isinstance(value, bool)


def kind_of(value: Any) -> str:
    """Return the JSON name of its type, with an article."""
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


def _text(path: str, name: str, operand: Any) -> str:
    if not isinstance(operand, str):
        raise Invalid(f"`{path}`: `{name}` takes a string, not {kind_of(operand)}")
    return operand


def _affix(path: str, name: Literal["prefix", "suffix"], operand: Any) -> Term:
    ignoring = False
    if isinstance(operand, Mapping):
        inner, operand = single(path, operand)
        if inner != "equals-ignore-case":
            raise Invalid(f"`{path}`: unsupported {name} pattern `{inner}`")
        ignoring = True
    text = _text(path, name, operand)
    if ignoring:
        # Folded once here; the index folds the value once for all terms.
        text = text.lower()
    if name == "prefix":
        if ignoring:
            return Term(
                "prefix-i", text, lambda v: isinstance(v, str) and v.lower().startswith(text)
            )
        return Term("prefix", text, lambda v: isinstance(v, str) and v.startswith(text))
    if ignoring:
        return Term("suffix-i", text, lambda v: isinstance(v, str) and v.lower().endswith(text))
    return Term("suffix", text, lambda v: isinstance(v, str) and v.endswith(text))


def _ignoring_case(text: str) -> Term:
    wanted = text.lower()
    return Term("text-i", wanted, lambda value: isinstance(value, str) and value.lower() == wanted)


def _wildcard(path: str, text: str) -> Term:
    """`*` stands for any characters; a backslash makes `*` or a backslash ordinary."""
    pieces = [""]
    index = 0
    star = False
    while index < len(text):
        char = text[index]
        if char == "\\":
            index += 1
            if index == len(text) or text[index] not in "*\\":
                raise Invalid(f"`{path}`: invalid escape character at position {index - 1}")
            pieces[-1] += text[index]
            star = False
        elif char == "*":
            if star:
                # As the service does.
                raise Invalid(f"`{path}`: consecutive wildcard characters at position {index - 1}")
            pieces.append("")
            star = True
        else:
            pieces[-1] += char
            star = False
        index += 1
    first, *inner = map(re.escape, pieces)
    # A piece stands where it is found first, and is never looked for again: an event that nearly
    # matches would else cost its length to the power of the stars.
    last = f".*{inner.pop()}" if inner else ""
    found = "".join(f"(?>.*?{piece})" for piece in inner)
    fits = re.compile(first + found + last, re.DOTALL).fullmatch
    return Term(
        "wildcard",
        tuple(pieces),
        lambda value: isinstance(value, str) and fits(value) is not None,
        fits,
    )


_COMPARISONS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "=": lambda a, b: a == b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def _numeric(path: str, operand: Any) -> Term:
    if not isinstance(operand, list):
        raise Invalid(f"`{path}`: the value of `numeric` must be an array, not {kind_of(operand)}")
    if len(operand) not in {2, 4}:
        raise Invalid(
            f'`{path}`: `numeric` takes one comparison or a range, such as [">", 0, "<=", 5]'
        )
    pairs = [(operand[i], operand[i + 1]) for i in range(0, len(operand), 2)]
    for sign, bound in pairs:
        if not isinstance(sign, str) or sign not in _COMPARISONS:
            raise Invalid(f"`{path}`: unrecognised numeric operator `{sign}`")
        if not is_number(bound) or abs(bound) > MAX_NUMBER:
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
    return Term(
        "interval",
        _interval(pairs),
        lambda value: is_number(value) and all(test(value, bound) for test, bound in tests),
    )


def _interval(pairs: list[tuple[str, Any]]) -> Interval:
    # `=` is an interval of one point, so one structure finds all comparisons.
    low, low_closed, high, high_closed = -math.inf, False, math.inf, False
    for sign, bound in pairs:
        if sign in {">", ">=", "="}:
            low, low_closed = bound, sign != ">"
        if sign in {"<", "<=", "="}:
            high, high_closed = bound, sign != "<"
    return Interval(low, low_closed, high, high_closed)


def _cidr(path: str, text: str) -> Term:
    address, slash, bits = text.partition("/")
    if not slash or "/" in bits:
        raise Invalid(f"`{path}`: malformed CIDR `{text}`, one '/' is required")
    if not bits.isdigit():
        raise Invalid(f"`{path}`: malformed CIDR `{text}`, the mask bits must be an integer")
    try:
        # Not strict: an address with host bits, such as 10.0.0.7/8, names its network.
        network = ipaddress.ip_network(f"{address}/{bits}", strict=False)
    except ValueError as error:
        raise Invalid(f"`{path}`: malformed CIDR `{text}`: {error}") from error

    def test(value: Scalar) -> bool:
        found = address_in(value)
        return found is not None and found in network

    return Term("cidr", network, test)


def address_in(value: Scalar) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The internet address a text is, or None."""
    if not isinstance(value, str):
        return None
    try:
        return ipaddress.ip_address(value)
    except ValueError:
        return None


def _anything_but(path: str, operand: Any) -> Term:
    if isinstance(operand, Mapping):
        name, inner = single(path, operand)
        if name not in {"prefix", "suffix", "equals-ignore-case", "wildcard"}:
            raise Invalid(f"`{path}`: unsupported anything-but pattern `{name}`")
        many = inner if isinstance(inner, list) else [inner]
        if not many:
            raise Invalid(f"`{path}`: empty lists are not allowed in `anything-but`")
        if name in {"prefix", "suffix"} and any(isinstance(one, Mapping) for one in many):
            raise Invalid(f"`{path}`: inside anything-but/{name} only strings are allowed")
        if name in {"prefix", "suffix"} and "" in many:
            raise Invalid(f"`{path}`: an empty {name} is not allowed in `anything-but`")
        return _none_of([operator(path, name, one) for one in many])
    many = operand if isinstance(operand, list) else [operand]
    if not many:
        raise Invalid(f"`{path}`: empty lists are not allowed in `anything-but`")
    kinds = {kind_of(one) for one in many}
    # Mixed lists are refused by the service too.
    if not kinds <= {"a string"} and not kinds <= {"a number"}:
        raise Invalid(
            f"`{path}`: `anything-but` takes strings, or numbers, not {', '.join(sorted(kinds))}"
        )
    return _none_of([equal_to(one) for one in many])


def _none_of(refused: list[Term]) -> Term:
    tests = [term.test for term in refused]
    return Term(
        "but",
        # A set: equal lists in another order are one test of the index.
        frozenset((term.kind, term.operand) for term in refused),
        lambda value: not any(test(value) for test in tests),
    )
