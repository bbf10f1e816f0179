"""Many patterns, one event: which rules are meant, at a cost that leaves out rules that cannot be.

In: patterns by name, then events. Out: the names that match. The rules form a tree: at each node a
rule waits at the path where it differs most from the others, in a `TermIndex`; an event walks only
branches whose tests it passes. Only paths that some rule mentions are looked at. The results are
those of `pattern.Pattern`, arrays included.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from itertools import count
from typing import Any, Final, NamedTuple

from headrace.model.errors import Unknown
from headrace.patterns.operator_index import TermIndex
from headrace.patterns.operators import Scalar, Term
from headrace.patterns.pattern import (
    Leaf,
    Pattern,
    Places,
    Value,
    all_hold,
    compile_pattern,
    flatten,
)

FEW: Final = 3
"""So many alternatives are tested one by one; more become a node."""

_RANK: Final = {"text": 0, "number": 0, "constant": 0, "text-i": 0, "but": 2, "present": 3}
_TESTED: Final = 2
"""From this rank on a test cannot be looked up."""
_ABSENT: Final = 4
_MISSING: Final[Any] = object()

# Never reset: numbers only have to differ within an event, and Python's integers do not overflow.
_arrays: Final = count()
"""Numbers the arrays; no two have the same number."""
# Exact types, looked up in a set: faster than `isinstance` for every value of every event.
_PLAIN: Final = frozenset([str, int, float, bool, type(None), Decimal])


class RuleIndex:
    """Rules by name. Changing them is cheap; the first match after a change builds the tree."""

    def __init__(self) -> None:
        self._rules: dict[str, Pattern] = {}
        # Rebuilt as a whole: rules change with deployments, events come by the thousand.
        self._tree: _Tree | None = None

    def __len__(self) -> int:
        return len(self._rules)

    def add(self, name: str, pattern: Any) -> None:
        """Add a rule, or replace the one of that name.

        Raises:
            Invalid: The pattern is none; nothing is changed.
        """
        self._rules[name] = compile_pattern(pattern)
        self._tree = None

    def remove(self, name: str) -> None:
        """Forget a rule.

        Raises:
            Unknown: There is none of that name.
        """
        if name not in self._rules:
            raise Unknown(f"there is no rule `{name}`")
        del self._rules[name]
        self._tree = None

    def match(self, event: Any) -> list[str]:
        """The names of the rules that the (decoded JSON) event is meant by, each once."""
        if not isinstance(event, Mapping):
            return []
        tree = self._tree
        if tree is None:
            tree = self._tree = _Tree(self._rules)
        return tree.match(event)


class _Alternative(NamedTuple):
    """One conjunction of a rule; `rest` are the leaves that no branch on the way has judged."""

    name: str
    leaves: tuple[Leaf, ...]
    rest: tuple[Leaf, ...]


class _Tree:
    """The built index."""

    def __init__(self, rules: Mapping[str, Pattern]) -> None:
        alternatives = [
            _Alternative(name, leaves, leaves)
            for name, pattern in rules.items()
            for leaves in pattern.alternatives
        ]
        self._paths = frozenset(leaf.path for one in alternatives for leaf in one.leaves)
        self._level = _level_of(self._paths)
        self._root = _Node(alternatives)

    def match(self, event: Mapping[str, Any]) -> list[str]:
        """The rules that are meant."""
        fields: dict[str, Any] = {}
        # A nameless member lends its own members' names to the event itself.
        # Rare, and it breaks the levels: such an event is flattened whole.
        if "" in event:
            fields = {path: found for path, found in flatten(event).items() if path in self._paths}
            return _walk_many(self._root, fields)
        if _collect(event, self._level, fields):
            return _walk(self._root, fields)
        return _walk_many(self._root, fields)


class _Node:
    """Alternatives that wait for the same event so far. It sorts itself when first visited."""

    __slots__ = ("_pending", "absent", "branches", "done", "ends", "few", "met", "paths", "ready")

    def __init__(self, alternatives: list[_Alternative]) -> None:
        # Sorted at its first visit: most nodes of a large index are never reached.
        self.ready = self.branches = self.ends = False
        self._pending = alternatives
        self.done: list[_Alternative] = []
        self.met: list[str] = []
        self.few: list[_Alternative] = []
        self.paths: dict[str, TermIndex[_Node]] = {}
        self.absent: dict[str, _Node] = {}

    def sort(self) -> None:
        """Give every alternative its place."""
        waiting, self._pending, self.ready = self._pending, [], True
        self.done = [one for one in waiting if not one.rest]
        self.met = list(dict.fromkeys(one.name for one in self.done))
        waiting = [one for one in waiting if one.rest]
        self.ends = not waiting
        # Below this a node's dictionaries cost more than the tests.
        if len(waiting) <= FEW:
            self.few = waiting
            return
        variety: dict[str, set[tuple[str, Any]]] = {}
        for one in waiting:
            for leaf in one.rest:
                variety.setdefault(leaf.path, set()).update(
                    (term.kind, term.operand) for term in leaf.terms
                )
        terms: dict[str, dict[tuple[str, Any], tuple[Term, list[_Alternative]]]] = {}
        gone: dict[str, list[_Alternative]] = {}
        for one in waiting:
            # At the path where the rules differ most an event leaves the most rules behind.
            leaf = min(one.rest, key=lambda leaf: _order(leaf, len(variety[leaf.path])))
            after = one._replace(rest=tuple(other for other in one.rest if other is not leaf))
            at = terms.setdefault(leaf.path, {})
            for term in leaf.terms:
                # Equal tests of many rules are one branch, and run once for an event.
                at.setdefault((term.kind, term.operand), (term, []))[1].append(after)
            if leaf.absent:
                gone.setdefault(leaf.path, []).append(after)
        self.absent = {path: _Node(alternatives) for path, alternatives in gone.items()}
        self.paths = {
            path: TermIndex([(term, _Node(found)) for term, found in at.values()])
            for path, at in terms.items()
            if at
        }
        self.branches = True


def _order(leaf: Leaf, variety: int) -> tuple[bool, bool, int, int]:
    """Rank of a leaf by how well it separates rules, the lowest best.

    Leaves that can be looked up come before those that are tested one by one. A leaf that all rules
    share separates none: it is tested last, for the few rules that are left then.
    """
    rank = _rank(leaf)
    return rank >= _TESTED, variety <= 1, rank, -variety


def _rank(leaf: Leaf) -> int:
    """Rank of a leaf by the cost of its test, 0 best: a choice is as slow as its slowest test."""
    if leaf.absent:
        return _ABSENT
    return max(_RANK.get(term.kind, 1) for term in leaf.terms)


# --- events -----------------------------------------------------------------------------------


class _Level:
    """The members of one object that some rule mentions.

    Attributes:
        members: By name: the path it completes, if it does, and the level within, if there is one.
        plan: The same, in a row.
    """

    __slots__ = ("members", "plan")

    def __init__(self) -> None:
        self.members: dict[str, tuple[str | None, _Level | None]] = {}
        self.plan: list[tuple[str, str | None, _Level | None]] = []


def _level_of(paths: Iterable[str]) -> _Level:
    """The members to look at. A name with dots in it and nested names make the same path."""
    levels: dict[str, _Level] = {"": _Level()}
    for path in sorted(paths):
        parts = path.split(".")
        for begin in range(len(parts)):
            members = levels.setdefault(".".join(parts[:begin]), _Level()).members
            for end in range(begin + 1, len(parts) + 1):
                name, reached = ".".join(parts[begin:end]), ".".join(parts[:end])
                completes, within = members.get(name, (None, None))
                if end == len(parts):
                    completes = path
                else:
                    within = levels.setdefault(reached, _Level())
                members[name] = completes, within
    for level in levels.values():
        level.plan = [(name, *place) for name, place in level.members.items()]
    return levels[""]


def _met(
    event: Mapping[str, Any], level: _Level
) -> Iterable[tuple[str, str | None, _Level | None]]:
    """The members of `level` that the event may have."""
    # The shorter side is walked: an event may have hundreds of members, or the rules may.
    if len(level.plan) <= 2 * len(event):
        return level.plan
    members = level.members
    return [(name, *members[name]) for name in event if name in members]


def _collect(event: Mapping[str, Any], level: _Level, fields: dict[str, Any]) -> bool:
    """Put the leaves the rules mention to `fields`; whether all of them are plain values.

    Not plain are values in arrays, and a path that comes twice: such a path holds a list.
    """
    plain = True
    for name, path, within in _met(event, level):
        # Not `get`: null is a value, and an absent member is another case.
        if name in event:
            value = event[name]
            kind = type(value)
            if kind is dict:
                if within is not None and not _collect(value, within, fields):
                    plain = False
            elif kind not in _PLAIN or path in fields:
                _spread(value, path, within, (), fields)
                plain = False
            elif path is not None:
                fields[path] = value
    return plain


def _spread(
    value: Any, path: str | None, within: _Level | None, places: Places, fields: dict[str, Any]
) -> None:
    """Put all the leaves in `value` to `fields`, as `flatten` does with every leaf."""
    if isinstance(value, list):
        array = next(_arrays)
        for index, inner in enumerate(value):
            _spread(inner, path, within, (*places, (array, index)), fields)
    elif isinstance(value, Mapping):
        if within is not None:
            for name, completes, deeper in _met(value, within):
                if name in value:
                    _spread(value[name], completes, deeper, places, fields)
    elif path is not None:
        _values(fields, path).append(Value(value, places))


def _values(fields: dict[str, Any], path: str) -> list[Value]:
    """The list of a path's values, made of a plain one where that stands there."""
    known = fields.get(path, _MISSING)
    if type(known) is not list:
        known = fields[path] = [] if known is _MISSING else [Value(known, ())]
    found: list[Value] = known
    return found


# --- walks ------------------------------------------------------------------------------------


def _walk(root: _Node, fields: dict[str, Scalar]) -> list[str]:
    """The rules met on the branches that plain values lead to."""
    names: dict[str, None] = {}
    nodes = [root]
    while nodes:
        node = nodes.pop()
        if not node.ready:
            node.sort()
        for name in node.met:
            names[name] = None
        if node.ends:
            continue
        for one in node.few:
            if _holds(one.rest, fields):
                names[one.name] = None
        if not node.branches:
            continue
        paths = node.paths
        # Again the shorter side.
        if len(paths) <= len(fields):
            for path, index in paths.items():
                value = fields.get(path, _MISSING)
                if type(value) is str:
                    # As `find` does, without a call in between: nearly every value is a text.
                    if index.texts and value in index.texts:
                        nodes.append(index.texts[value])
                    for look_up in index.lookups:
                        look_up(value, value, nodes)
                    if index.has_more:
                        index.find_more(value, nodes)
                elif value is not _MISSING:
                    index.find(value, nodes)
        else:
            for path, value in fields.items():
                if path in paths:
                    paths[path].find(value, nodes)
        if node.absent:
            nodes += [then for path, then in node.absent.items() if path not in fields]
    return list(names)


def _holds(leaves: tuple[Leaf, ...], fields: Mapping[str, Any]) -> bool:
    for leaf in leaves:
        value = fields.get(leaf.path, _MISSING)
        if value is _MISSING:
            if not leaf.absent:
                return False
        elif type(value) is list:
            if not any(term.test(each.value) for each in value for term in leaf.terms):
                return False
        else:
            for term in leaf.terms:
                if term.test(value):
                    break
            else:
                return False
    return True


def _walk_many(root: _Node, fields: dict[str, Any]) -> list[str]:
    """The same where some paths hold several values; then one array must not give two elements."""
    in_arrays = {
        path
        for path, values in fields.items()
        if type(values) is list and any(one.places for one in values)
    }
    names: dict[str, None] = {}
    nodes = [root]
    while nodes:
        node = nodes.pop()
        if not node.ready:
            node.sort()
        for one in node.done:
            if one.name not in names and (
                not _is_entangled(one, in_arrays) or _holds_together(one, fields)
            ):
                names[one.name] = None
        for one in node.few:
            if one.name not in names and (
                _holds_together(one, fields)
                if _is_entangled(one, in_arrays)
                else _holds(one.rest, fields)
            ):
                names[one.name] = None
        if not node.branches:
            continue
        paths = node.paths
        for path in paths if len(paths) <= len(fields) else fields:
            if path in fields and path in paths:
                index, value = paths[path], fields[path]
                kind = type(value)
                if kind is str:
                    # As `find` does, without a call in between: nearly every value is a text.
                    if value in index.texts:
                        nodes.append(index.texts[value])
                    for look_up in index.lookups:
                        look_up(value, value, nodes)
                    if index.has_more:
                        index.find_more(value, nodes)
                elif kind is not list:
                    index.find(value, nodes)
                elif len(value) == 1:
                    index.find(value[0].value, nodes)
                else:
                    _find_any(index, value, nodes)
        if node.absent:
            nodes += [then for path, then in node.absent.items() if path not in fields]
    return list(names)


def _is_entangled(one: _Alternative, in_arrays: set[str]) -> bool:
    """Return whether several of its leaves stand in arrays, and so may be of different elements."""
    return len(one.leaves) > 1 and sum(leaf.path in in_arrays for leaf in one.leaves) > 1


def _holds_together(one: _Alternative, fields: Mapping[str, Any]) -> bool:
    """Return whether all leaves hold, and in the same elements of the event's arrays."""
    spelled = {
        leaf.path: value if type(value) is list else [Value(value, ())]
        for leaf in one.leaves
        if (value := fields.get(leaf.path, _MISSING)) is not _MISSING
    }
    return all_hold(one.leaves, spelled)


def _find_any(index: TermIndex[_Node], values: list[Value], nodes: list[_Node]) -> None:
    """Put to `nodes`, each once, where the terms that one of the values passes lead."""
    reached: list[_Node] = []
    # With the type, since 1 and True are one key of a dictionary. Equal values are looked up once.
    for value in {(type(each.value), each.value): each.value for each in values}.values():
        index.find(value, reached)
    # By identity: several values of an array may lead to one node, which must be visited once.
    nodes += {id(then): then for then in reached}.values()
