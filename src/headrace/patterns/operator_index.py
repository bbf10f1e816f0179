"""Finds, among the many tests put to one path, those that a value passes. Pure.

In: terms, each with what it leads to. Out, for a value: what the passed terms lead to. Equal terms
are one test. Texts, numbers and addresses are looked up, affixes by their length, wildcards by the
rarest of their literal pieces, ranges in a tree; only `anything-but` is tested one by one.
"""

from __future__ import annotations

import ipaddress
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar

from headrace.patterns.operators import Interval, Scalar, Term, Test, address_in

T = TypeVar("T")

# Four characters: short ones are in nearly every text, long ones are missing from short patterns.
GRAM: Final = 4
# A wildcard may be thousands of characters long; more anchors to choose from would only slow the
# build.
MAX_GRAMS: Final = 64
# Ranges that overlap much would be listed in very many segments: then a tree takes less memory.
MAX_SEGMENTS_PER_RANGE: Final = 8
DELIMITERS: Final = "/:."
"""Cutting a text at one of these is cheaper than finding its words."""
PART: Final = "part "
_RUN: Final = re.compile(r"\w+")
_words: Final = _RUN.findall
_INFINITE: Final = float("inf")


class TermIndex(Generic[T]):
    """The terms of one path, each with where it leads. Built once; `find` is called per event.

    Attributes:
        texts: Where whole texts lead.
        lookups: Finds where other tests of texts lead, each called with the text, twice.
        has_more: Whether `find_more` has anything to find.
    """

    __slots__ = (
        "_always",
        "_constants",
        "_numbers",
        "_others",
        "_ranges",
        "has_more",
        "lookups",
        "texts",
    )

    def __init__(self, terms: Sequence[tuple[Term, T]]) -> None:
        self.texts: dict[str, T] = {}
        self._numbers: dict[Any, T] = {}
        self._constants: dict[Scalar, T] = {}
        self._always: list[T] = []
        self._others: list[tuple[Test, T]] = []
        plain: list[tuple[Term, T]] = []
        folded: list[tuple[Term, T]] = []
        ranges: list[tuple[Interval, T]] = []
        networks: list[tuple[Any, T]] = []
        for term, to in terms:
            match term.kind:
                case "text":
                    self.texts[term.operand] = to
                case "number":
                    self._numbers[term.operand] = to
                case "constant":
                    self._constants[term.operand] = to
                case "present":
                    self._always.append(to)
                case "prefix" | "suffix" | "wildcard":
                    plain.append((term, to))
                case "text-i" | "prefix-i" | "suffix-i":
                    folded.append((term, to))
                case "interval":
                    ranges.append((term.operand, to))
                case "cidr":
                    networks.append((term.operand, to))
                case "but":
                    self._others.append((term.test, to))
        self._ranges = _ranges_of(ranges) if ranges else None
        lookups = [*_Texts(plain).lookups(), *map(_folding, _Texts(folded).lookups())]
        if networks:
            lookups.append(_Networks(networks).find)
        # Most paths are only ever compared with whole values, and have none.
        self.lookups: tuple[_Lookup[T], ...] = tuple(lookups)
        self.has_more = bool(self._others or self._always)

    def find(self, value: Scalar, found: list[T]) -> None:
        """Put to `found` where the terms that `value` passes lead."""
        if type(value) is str:
            if (to := self.texts.get(value)) is not None:
                found.append(to)
            for look_up in self.lookups:
                look_up(value, value, found)
        # Before the numbers: `True` is found under 1 in a dictionary.
        elif value is None or value is True or value is False:
            if (to := self._constants.get(value)) is not None:
                found.append(to)
        else:
            if (to := self._numbers.get(value)) is not None:
                found.append(to)
            if self._ranges is not None:
                self._ranges.find(value, found)
        if self.has_more:
            self.find_more(value, found)

    def find_more(self, value: Scalar, found: list[T]) -> None:
        """Put to `found` where the tests lead that run one by one, or always pass."""
        for test, to in self._others:
            if test(value):
                found.append(to)
        found += self._always


class _Anchor(NamedTuple):
    """Something a text must hold for a term to have a chance."""

    where: str
    text: str


_Guard = Callable[[str], object]
_Lookup = Callable[[str, str, list[T]], None]
"""Looks a text up; guards are called with the second, the value it was made from."""


def _folding(look_up: _Lookup[T]) -> _Lookup[T]:
    """The same for the text in lower case."""
    return lambda text, value, found: look_up(text.lower(), value, found)


def _cutting(delimiter: str, table: dict[str, list[tuple[_Guard | None, T]]]) -> _Lookup[T]:
    """Looks up every part between two delimiters."""

    def look_up(text: str, value: str, found: list[T]) -> None:
        for part in text.split(delimiter):
            if part in table:
                for guard, to in table[part]:
                    if guard is None or guard(value):
                        found.append(to)

    return look_up


class _Texts(Generic[T]):
    """Prefixes, suffixes, wholes and wildcards, each hung up at one anchor."""

    def __init__(self, terms: Sequence[tuple[Term, T]]) -> None:
        counts = Counter(anchor for term, _ in terms for anchor in set(_anchors(term)))
        tables: dict[str, dict[int, dict[str, list[tuple[_Guard | None, T]]]]] = {}
        self._wholes: dict[str, T] = {}
        self._rest: list[tuple[Test, T]] = []
        for term, to in terms:
            if term.kind == "text-i":
                self._wholes[term.operand] = to
                continue
            anchors = _anchors(term)
            if not anchors:
                self._rest.append((term.test, to))
                continue
            # The anchor that the fewest terms share: its list of candidates is the shortest.
            anchor = min(anchors, key=counts.__getitem__)
            table = tables.setdefault(anchor.where, {}).setdefault(len(anchor.text), {})
            guard = term.fits
            table.setdefault(anchor.text, []).append((guard, to))
        self._prefixes = sorted(tables.get("prefix", {}).items())
        self._suffixes = sorted(tables.get("suffix", {}).items())
        self._grams = sorted(tables.get("gram", {}).items())
        words = tables.get("word", {}).values()
        self._words = {word: hung for table in words for word, hung in table.items()}
        self._parts: dict[str, dict[str, list[tuple[_Guard | None, T]]]] = {}
        for where, by_length in tables.items():
            if where.startswith(PART):
                parts = self._parts.setdefault(where.removeprefix(PART), {})
                for table in by_length.values():
                    parts |= table

    def lookups(self) -> list[_Lookup[T]]:
        """The ways to look that have anything to find."""
        ways = [
            (self._wholes, self._whole),
            (self._prefixes, self._prefix),
            (self._suffixes, self._suffix),
            (self._words, self._word),
            (self._grams, self._gram),
            (self._rest, self._any),
        ]
        cuts = [_cutting(delimiter, table) for delimiter, table in self._parts.items()]
        return [*cuts, *(way for there, way in ways if there)]

    def _whole(self, text: str, value: str, found: list[T]) -> None:
        del value
        if (to := self._wholes.get(text)) is not None:
            found.append(to)

    def _prefix(self, text: str, value: str, found: list[T]) -> None:
        size = len(text)
        for length, table in self._prefixes:
            # Sorted by length: all that follow are longer than the text as well.
            if length > size:
                break
            for guard, to in table.get(text[:length], ()):
                if guard is None or guard(value):
                    found.append(to)

    def _suffix(self, text: str, value: str, found: list[T]) -> None:
        size = len(text)
        for length, table in self._suffixes:
            if length > size:
                break
            for guard, to in table.get(text[size - length :], ()):
                if guard is None or guard(value):
                    found.append(to)

    def _word(self, text: str, value: str, found: list[T]) -> None:
        words = self._words
        for word in _words(text):
            if word in words:
                for guard, to in words[word]:
                    if guard is None or guard(value):
                        found.append(to)

    def _gram(self, text: str, value: str, found: list[T]) -> None:
        for length, table in self._grams:
            # A gram may come twice in the text; its terms are tested once.
            for gram in dict.fromkeys(
                text[at : at + length] for at in range(len(text) - length + 1)
            ):
                for guard, to in table.get(gram, ()):
                    if guard is None or guard(value):
                        found.append(to)

    def _any(self, text: str, value: str, found: list[T]) -> None:
        del text
        for test, to in self._rest:
            if test(value):
                found.append(to)


def _anchors(term: Term) -> list[_Anchor]:
    """Return the keys under which a term can be indexed; the cheapest lookup first."""
    if term.kind in {"prefix", "prefix-i"}:
        return [_Anchor("prefix", term.operand)]
    if term.kind in {"suffix", "suffix-i"}:
        return [_Anchor("suffix", term.operand)]
    if term.kind != "wildcard":
        return []
    first, last = term.operand[0], term.operand[-1]
    found = []
    if first:
        found.append(_Anchor("prefix", first))
    if last:
        found.append(_Anchor("suffix", last))
    last_place = len(term.operand) - 1
    for place, piece in enumerate(term.operand):
        for delimiter in DELIMITERS:
            if delimiter in piece:
                # What the piece itself delimits, or an end of the text, is a part of the text.
                parts = piece.split(delimiter)
                known = parts[0 if place == 0 else 1 : None if place == last_place else -1]
                found += [_Anchor(PART + delimiter, part) for part in known if part]
    for place, piece in enumerate(term.operand):
        for run in _RUN.finditer(piece):
            # A run that the piece itself delimits, or an end of the text, is a word of the text.
            begins = run.start() > 0 or place == 0
            if begins and (run.end() < len(piece) or place == last_place):
                found.append(_Anchor("word", run[0]))
    grams = [
        _Anchor("gram", piece[at : at + GRAM])
        for piece in term.operand
        if piece
        for at in range(max(len(piece) - GRAM, 0) + 1)
    ]
    return found + grams[:MAX_GRAMS]


def _ranges_of(ranges: Sequence[tuple[Interval, T]]) -> _Segments[T] | _Ranges[T]:
    """The intervals cut into segments where they overlap little, as a tree where much."""
    segments = _Segments(ranges)
    return segments if segments.is_lean else _Ranges(ranges)


class _Segments(Generic[T]):
    """The number line cut at every bound: points have odd places, the gaps between even ones."""

    def __init__(self, ranges: Sequence[tuple[Interval, T]]) -> None:
        bounds = {b for one, _ in ranges for b in (one.low, one.high) if abs(b) != _INFINITE}
        self._points = sorted(bounds)
        spans = [(self._first(one), self._last(one), to) for one, to in ranges]
        held = sum(last - first + 1 for first, last, _ in spans)
        self.is_lean = held <= MAX_SEGMENTS_PER_RANGE * len(spans)
        self._segments: list[list[T]] = [[] for _ in range(2 * len(self._points) + 1)]
        for first, last, to in spans if self.is_lean else ():
            for place in range(first, last + 1):
                self._segments[place].append(to)

    def _first(self, one: Interval) -> int:
        if one.low == -_INFINITE:
            return 0
        return 2 * bisect_left(self._points, one.low) + (1 if one.low_closed else 2)

    def _last(self, one: Interval) -> int:
        if one.high == _INFINITE:
            return 2 * len(self._points)
        return 2 * bisect_left(self._points, one.high) + (1 if one.high_closed else 0)

    def find(self, value: Any, found: list[T]) -> None:
        """Return the targets of the intervals that contain `value`."""
        points = self._points
        at = bisect_left(points, value)
        found += self._segments[2 * at + (at < len(points) and points[at] == value)]


class _Ranges(Generic[T]):
    """Intervals around a centre, those below it and those above it: a tree."""

    def __init__(self, ranges: Sequence[tuple[Interval, T]]) -> None:
        bounds = sorted(
            bound for one, _ in ranges for bound in (one.low, one.high) if abs(bound) != _INFINITE
        )
        # The median of the bounds keeps both halves about equal, and the tree shallow.
        self._centre = centre = bounds[len(bounds) // 2]
        below = [(one, to) for one, to in ranges if one.high < centre]
        above = [(one, to) for one, to in ranges if one.low > centre]
        here = [(one, to) for one, to in ranges if one.low <= centre <= one.high]
        self._by_low = sorted(here, key=lambda pair: pair[0].low)
        self._by_high = sorted(here, key=lambda pair: pair[0].high, reverse=True)
        self._below = _Ranges(below) if below else None
        self._above = _Ranges(above) if above else None

    def find(self, value: Any, found: list[T]) -> None:
        """Return the targets of the intervals that contain `value`."""
        node: _Ranges[T] | None = self
        while node is not None:
            centre = node._centre
            if value < centre:
                for one, to in node._by_low:
                    if value < one.low:
                        break
                    if value > one.low or one.low_closed:
                        found.append(to)
                node = node._below
            elif value > centre:
                for one, to in node._by_high:
                    if value > one.high:
                        break
                    if value < one.high or one.high_closed:
                        found.append(to)
                node = node._above
            # NaN compares false with everything, and would otherwise be taken for the centre.
            elif value != centre:  # not a number at all
                return
            else:
                for one, to in node._by_low:
                    if (value > one.low or one.low_closed) and (
                        value < one.high or one.high_closed
                    ):
                        found.append(to)
                return


class _Networks(Generic[T]):
    """Networks by version and length, each a table of its addresses' leading bits."""

    def __init__(
        self, networks: Sequence[tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, T]]
    ) -> None:
        self._tables: dict[int, dict[int, dict[int, T]]] = {}
        for network, to in networks:
            host_bits = network.max_prefixlen - network.prefixlen
            table = self._tables.setdefault(network.version, {}).setdefault(host_bits, {})
            # One table per prefix length: an address is looked up at most 33 (129) times, however
            # many networks there are.
            table[int(network.network_address) >> host_bits] = to

    def find(self, text: str, value: str, found: list[T]) -> None:
        """Return the targets of the networks that contain the address `value`."""
        del text
        address = address_in(value)
        # Parsed once for all networks; a text that is not an address is the usual case.
        if address is None:
            return
        number = int(address)
        for host_bits, table in self._tables.get(address.version, {}).items():
            if (to := table.get(number >> host_bits)) is not None:
                found.append(to)
