"""Event patterns: which events a trigger or rule is about. Pure: a pattern and a value, yes or no.

The language is Amazon EventBridge's (EventBridge user guide, "Comparison operators"), judged as its
open-source engine, aws/event-ruler, does: an event is flattened to `path -> values`; a pattern names
paths and what one of their values must be; values that stand in different elements of one array do
not match together. A pattern that cannot hold is refused when it is compiled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from headrace.model.errors import Invalid
from headrace.patterns.operators import (
    PRESENT,
    RESERVED,
    Scalar,
    Term,
    equal_to,
    kind_of,
    operator,
    single,
)

Places = tuple[tuple[int, int], ...]

# `$or`s multiply: ten with ten options each are 10 billion conjunctions.
MAX_ALTERNATIVES: Final = 1_000
_SHOWN: Final = 5


class Value(NamedTuple):
    """A leaf of an event, and which element of which array it stands in."""

    value: Scalar
    places: Places


class Leaf(NamedTuple):
    """Condition on one path: a value that passes one of the tests, or (`absent`) no value."""

    path: str
    terms: tuple[Term, ...]
    absent: bool
    wanted: Any


class Pattern:
    """A compiled pattern; `matches` may be called from anywhere.

    Attributes:
        alternatives: It holds where all leaves of one of them do.
    """

    def __init__(self, alternatives: tuple[tuple[Leaf, ...], ...]) -> None:
        self.alternatives = alternatives

    def matches(self, event: Any) -> bool:
        """Return whether the (decoded JSON) event is meant."""
        if not isinstance(event, Mapping):
            return False
        fields = flatten(event)
        return any(all_hold(leaves, fields) for leaves in self.alternatives)


def compile_pattern(pattern: Any) -> Pattern:
    """Check a pattern and make it ready.

    Raises:
        Invalid: It is not a pattern; the message names the path and the cause.
    """
    if not isinstance(pattern, Mapping):
        raise Invalid(f"a pattern is a JSON object, not {kind_of(pattern)}")
    if not pattern:
        raise Invalid("an empty pattern matches nothing and everything; name at least one field")
    return Pattern(tuple(tuple(leaves) for leaves in _alternatives(pattern, "")))


# --- events ---------------------------------------------------------------------------------


def flatten(event: Mapping[str, Any]) -> dict[str, list[Value]]:
    """The event's leaves by dotted path; `a.b` in a name and `b` within `a` are the same path."""
    fields: dict[str, list[Value]] = {}
    # Fresh for each event: numbers are compared within one event only.
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
        # A number for each array, since the path alone does not distinguish nested ones.
        array = next(counter)
        for index, inner in enumerate(value):
            _flatten(inner, path, (*places, (array, index)), fields, counter)
    else:
        fields.setdefault(path, []).append(Value(value, places))


def all_hold(leaves: tuple[Leaf, ...], fields: Mapping[str, list[Value]]) -> bool:
    """Return whether every leaf holds, and all of them in the same elements of the event's arrays."""
    candidates: list[list[Places]] = []
    for leaf in leaves:
        values = fields.get(leaf.path)
        if values is None:
            if not leaf.absent:
                return False
            continue
        fitting = [v.places for v in values if any(term.test(v.value) for term in leaf.terms)]
        if not fitting:
            return False
        # A value outside of all arrays fits with every element, and restricts nothing.
        if () not in fitting:
            candidates.append(fitting)
    return len(candidates) < 2 or _consistent(candidates)


class _Spot:
    """An element of an array, or the event itself: what stands there, and in the arrays beneath."""

    __slots__ = ("arrays", "found")

    def __init__(self) -> None:
        self.found = 0
        self.arrays: dict[int, dict[int, _Spot]] = {}


def _consistent(candidates: list[list[Places]]) -> bool:
    """Return whether one value per path can be chosen so that no array gives two elements.

    One walk over the values, whatever they are: trying one choice after the other would cost an event
    with long arrays their lengths multiplied.
    """
    event = _Spot()
    for number, fitting in enumerate(candidates):
        for places in fitting:
            spot = event
            for array, index in places:
                elements = spot.arrays.setdefault(array, {})
                spot = elements.get(index) or elements.setdefault(index, _Spot())
            spot.found |= 1 << number
    # All bits set: every path has its value within one choice of elements.
    return (1 << len(candidates)) - 1 in _together(event)


def _together(spot: _Spot) -> list[int]:
    """Return the largest sets of paths, as bits, that can have their values in or beneath `spot`."""
    sets = [spot.found]
    for elements in spot.arrays.values():
        inner = _largest({one for element in elements.values() for one in _together(element)})
        sets = _largest({one | other for one in sets for other in inner})
    return sets


def _largest(sets: set[int]) -> list[int]:
    kept: list[int] = []
    for one in sorted(sets, key=int.bit_count, reverse=True):
        # Subsets add nothing. Without this the sets multiply with each array of an event.
        if all(one & ~larger for larger in kept):
            kept.append(one)
    return kept


# --- patterns -------------------------------------------------------------------------------


def _alternatives(pattern: Mapping[str, Any], path: str) -> list[list[Leaf]]:
    """The pattern as a choice of conjunctions."""
    found: list[list[Leaf]] = [[]]
    for name, wanted in pattern.items():
        here = f"{path}.{name}" if path else name
        # An object may have a member called `$or`: only a list of two or more objects is the
        # operator.
        if name == "$or" and _is_choice(wanted):
            options = [more for one in wanted for more in _alternatives(one, path)]
        elif isinstance(wanted, Mapping):
            if not wanted:
                raise Invalid(f"`{here}`: an empty object matches nothing")
            options = _alternatives(wanted, here)
        elif isinstance(wanted, list):
            options = [[_leaf(here, wanted)]]
        else:
            raise Invalid(f"`{here}` must be an object or an array, not {kind_of(wanted)}")
        # A path named twice (next to `$or` and within it) means what was said last.
        found = [
            list({leaf.path: leaf for leaf in (*left, *right)}.values())
            for left in found
            for right in options
        ]
        if len(found) > MAX_ALTERNATIVES:
            raise Invalid(f"`{here}`: more than {MAX_ALTERNATIVES} combinations of `$or`")
    return found


def _is_choice(wanted: Any) -> bool:
    """Return whether `$or` is the operator: two or more objects, none of which is a single test."""
    return (
        # As the service does: anything else named `$or` is an ordinary field.
        isinstance(wanted, list)
        and len(wanted) > 1
        and all(isinstance(one, Mapping) and one for one in wanted)
        and not any(RESERVED & set(one) for one in wanted)
    )


def _leaf(path: str, wanted: list[Any]) -> Leaf:
    if not wanted:
        raise Invalid(f"`{path}`: empty arrays are not allowed")
    terms: list[Term] = []
    absent = False
    for one in wanted:
        if isinstance(one, Mapping):
            name, operand = single(path, one)
            if name == "exists":
                if not isinstance(operand, bool):
                    raise Invalid(f"`{path}`: `exists` takes true or false")
                absent = absent or not operand
                if operand:
                    terms.append(PRESENT)
                continue
            terms.append(operator(path, name, operand))
        elif isinstance(one, list):
            raise Invalid(f"`{path}`: an array holds values and tests, not arrays")
        else:
            terms.append(equal_to(one))
    return Leaf(path, tuple(terms), absent, wanted)


# --- why not ----------------------------------------------------------------------------------


class MatchResult(NamedTuple):
    """Result of matching an event against a pattern.

    Attributes:
        matches: Whether it is meant.
        reasons: Without a match, what failed: one line per failing leaf; `$or` gives several.
    """

    matches: bool
    reasons: tuple[str, ...]


def why(pattern: Any, event: Any) -> MatchResult:
    """Put the event to the pattern, and say which leaf failed and what it met there.

    Raises:
        Invalid: The pattern is none.
    """
    compiled = compile_pattern(pattern)
    if compiled.matches(event):
        return MatchResult(True, ())
    if not isinstance(event, Mapping):
        return MatchResult(False, (f"the event is {kind_of(event)}; only objects can match",))
    fields = flatten(event)
    reasons = [line for leaves in compiled.alternatives for line in _failing(leaves, fields)]
    return MatchResult(False, tuple(dict.fromkeys(reasons)))


def _failing(leaves: tuple[Leaf, ...], fields: dict[str, list[Value]]) -> list[str]:
    found = [
        f"`{leaf.path}` {_met(fields.get(leaf.path))}, but must be one of {_json(leaf.wanted)}"
        for leaf in leaves
        if not all_hold((leaf,), fields)
    ]
    if found:
        return found
    paths = ", ".join(f"`{leaf.path}`" for leaf in leaves if leaf.path in fields)
    return [f"{paths} each hold, but not within one element of the same array"]


def _met(values: list[Value] | None) -> str:
    if values is None:
        return "is absent"
    shown = [_json(value.value) for value in values[:_SHOWN]]
    more = f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else ""
    return f"is {', '.join(shown)}{more}"


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
