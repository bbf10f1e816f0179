"""Validation of values against a JSON Schema: for bodies and queries at the HTTP server.

In: the schema of an author's type, read once. Out: nothing, or the first place that is wrong. The
author's expressions (`pattern`) run in time linear in the text; what cannot is refused when the schema
is read. Expressions mean what they mean to Python, which knows letters and digits of every script.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
from jsonschema_rs import Draft202012Validator, RegexOptions, ValidationError, ValidationErrorKind

from headrace.model.errors import Misuse
from headrace.model.jsonschema import Mismatch, Schema, below
from headrace.model.text_values import IN_WORDS, is_of

MAX_EXPRESSION_BYTES: Final = 1 << 20
"""Of a compiled expression: with the text's length it bounds what a match can cost."""
MAX_MATCHED: Final = 32_768
"""Characters of a text that an expression is held against; a longer one is refused."""
MAX_STEPS: Final = 600_000
"""Characters times places of an expression: what a match takes at worst, some nanoseconds each."""
MAX_ALONE: Final = 200
MANY_TIMES, SLOWER, OF_LETTERS = 8, 5, 20
_MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_LISTS = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
_INNER = frozenset(
    {
        "items",
        "additionalProperties",
        "propertyNames",
        "contains",
        "not",
        "if",
        "then",
        "else",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)
_WHOLE_REAL = re.compile(rb"[0-9](?:\.0+(?![0-9])|[eE])")
"""A number such as `1.0` or `1e3`: JSON Schema counts it among the integers, the functions do not."""
_DIGITS_ALIKE = bytes.maketrans(b"123456789", b"000000000")
_KINDS: Final[tuple[tuple[str, tuple[type, ...]], ...]] = (
    ("boolean", (bool,)),
    ("object", (dict,)),
    ("array", (list,)),
    ("string", (str,)),
    ("integer", (int,)),
    ("number", (float,)),
    ("null", (type(None),)),
)
_BOUNDS: Final = {
    "minimum": "at least",
    "maximum": "at most",
    "exclusiveMinimum": "more than",
    "exclusiveMaximum": "less than",
}
_COUNTS: Final = {
    "minLength": ("at least", "characters"),
    "maxLength": ("at most", "characters"),
    "minItems": ("at least", "items"),
    "maxItems": ("at most", "items"),
    "minProperties": ("at least", "members"),
    "maxProperties": ("at most", "members"),
}
_FORMATS: Final[dict[str, Callable[..., bool]]] = {
    name: functools.partial(is_of, name) for name in IN_WORDS
}
_PYTHON = {"w": r"\p{L}\p{N}_", "d": r"\p{Nd}"}
_TOKEN = re.compile(
    r"""\\[pP]\{[^}]*\} | \\. | \[\^?\]?(?:\\.|[^\]\\])*\] | \(\?[a-zA-Z-]+\)
    | \((?:\?(?:[a-zA-Z-]*:|P?<[^>]*>|[=!]))? | \{[0-9]+(?:,[0-9]*)?\} | .""",
    re.VERBOSE | re.DOTALL,
)
_NUMBER = re.compile("[0-9]+")
_ONE_CLASS = re.compile(
    r"\^(?:\.|\\.|\[\^?\]?(?:\\.|[^\]\\])*\])(?:[*+?]|\{[0-9]+(?:,[0-9]*)?\})?\$", re.DOTALL
)
_WORD_ENDS = re.compile(r"(?:^|[^\\])(?:\\\\)*\\[bB]")
_PIECE = re.compile(r"\\.|.", re.DOTALL)


class Checker:
    """Holds values against one schema. Made once for each, shared by all requests."""

    def __init__(self, schema: Schema) -> None:
        """Read the schema.

        Raises:
            Misuse: An expression of it cannot run in linear time, or it is not a JSON Schema.
        """
        self._schema = schema
        self._written: dict[str, str] = {}
        # Compiled at deployment, so that a schema that cannot be read is refused there.
        self._quick = self._validator(self._read(schema, "", thorough=False), {})
        self._known: dict[bytes, Draft202012Validator] = {}
        self._found: Mismatch | None = None

    def check(self, value: Any, raw: bytes = b"") -> None:
        """Pass, where `value` is what the schema says.

        Args:
            value: Plain, as JSON is decoded.
            raw: The JSON it was decoded from, where there is some.

        Raises:
            Mismatch: It is not; the first place that is wrong.
        """
        fits = self._quick.is_valid(value)
        # JSON Schema counts 1.0 among the integers, and handlers typed `int` do not: only such
        # bodies need the slow check.
        if fits and not _may_hold_whole(raw):
            return
        # Callbacks distinguish numbers that JSON Schema does not, and stop at the first mismatch of
        # a choice, of which the engine would list all.
        self._hold(self._thorough, value)
        if not fits:
            # Only the quick validator found a mistake, so no place is known; the value is refused
            # all the same.
            raise Mismatch("", "is not what the route's type says")

    # Built on first use: most routes never get a wrong value.
    @functools.cached_property
    def _thorough(self) -> Draft202012Validator:
        return self._validator(self._read(self._schema, "", thorough=True), self._keywords)

    @functools.cached_property
    def _keywords(self) -> dict[str, type]:
        checker = self

        class Whole:
            def __init__(self, parent: Any, value: Any, path: Any) -> None:
                """Nothing is remembered."""

            def validate(self, value: Any) -> None:
                if isinstance(value, float):
                    checker._found = Mismatch("", "must be an integer, not a number")
                    raise checker._found

        class Choice:
            def __init__(self, parent: Mapping[str, Any], choices: list[Any], path: Any) -> None:
                self._choices = choices
                self._chooser = parent.get("discriminator")

            def validate(self, value: Any) -> None:
                try:
                    checker._choose(self._choices, self._chooser, value)
                except Mismatch as error:
                    checker._found = error
                    raise

        return {"x-whole": Whole, "x-choice": Choice}

    def _validator(self, schema: Any, keywords: dict[str, type]) -> Draft202012Validator:
        try:
            return Draft202012Validator(
                schema,
                formats=_FORMATS,
                validate_formats=True,
                keywords=keywords,
                # A `$ref` with an address must not make the node send requests.
                offline=True,
                pattern_options=RegexOptions(size_limit=MAX_EXPRESSION_BYTES),
            )
        except (ValidationError, ValueError) as error:
            raise Misuse(
                f"the JSON Schema of the route's type cannot be read: {error!s:.300}; mend what "
                "`Meta(extra_json_schema=...)` or the type's own schema adds to it"
            ) from error

    def _hold(self, validator: Draft202012Validator, value: Any) -> None:
        try:
            validator.validate(value)
        except ValidationError as error:
            raise self._mismatch(error, value) from None

    def _choose(self, choices: list[Any], chooser: Any, value: Any) -> None:
        """Pass, where one of the choices fits.

        Raises:
            Mismatch: None does; what is said is what the choice that came furthest has against it.
        """
        if isinstance(chooser, dict) and isinstance(value, dict):
            name, mapping = str(chooser.get("propertyName")), chooser.get("mapping", {})
            tag = value.get(name)
            # A discriminator names the choice: only its errors are of use.
            if isinstance(tag, (str, int)) and str(tag) in mapping:
                self._hold(self._choice({"$ref": mapping[str(tag)]}), value)
                return
            if name in value:
                known = ", ".join(repr(each) for each in list(mapping)[:20])
                raise Mismatch(below("", name), f"must be one of {known}")
        failed: list[Mismatch] = []
        for choice in choices:
            try:
                self._hold(self._choice(choice), value)
            except Mismatch as error:
                failed.append(error)
            else:
                return
        # The choice that came furthest is most likely the one that was meant.
        deepest = max(failed, key=lambda error: error.path.count("/"))
        if deepest.path:
            raise deepest
        raise Mismatch("", "; or ".join(dict.fromkeys(error.reason for error in failed)))

    def _choice(self, choice: Any) -> Draft202012Validator:
        """The validator of one choice, with the definitions it may refer to."""
        name = msgspec.json.encode(choice)
        found = self._known.get(name)
        if found is None:
            whole = self._read(self._schema, "", thorough=True)
            named = {word: whole[word] for word in ("$defs", "definitions") if word in whole}
            schema = choice if isinstance(choice, bool) else {**choice, **named}
            found = self._known[name] = self._validator(schema, self._keywords)
        return found

    # -- what is wrong ------------------------------------------------------------------------

    def _mismatch(self, error: ValidationError, value: Any) -> Mismatch:
        """The engine's first mismatch in our words."""
        path = ""
        for part in error.instance_path:
            path = below(path, str(part))
            value = value[part]
        return self._said(error.kind, path, value)

    def _said(self, kind: ValidationErrorKind, path: str, value: Any) -> Mismatch:
        said = kind.as_dict()
        match kind.name:
            case "x-whole" | "x-choice" if self._found is not None:
                return Mismatch(path + self._found.path, self._found.reason)
            case "type":
                return Mismatch(
                    path, f"must be {_an(_either(said['types']))}, not {_an(_kind(value))}"
                )
            case "required":
                return Mismatch(below(path, said["property"]), "is missing")
            case "additionalProperties" | "unevaluatedProperties":
                return Mismatch(below(path, said["unexpected"][0]), "is unknown here")
            case "const":
                return Mismatch(path, f"must be {said['expected_value']!r}")
            case "enum":
                choices = ", ".join(repr(each) for each in said["options"][:20])
                return Mismatch(path, f"must be one of {choices}")
            case "pattern":
                pattern = self._written.get(said["pattern"], said["pattern"])
                return Mismatch(path, f"must match `{pattern}`")
            case "format":
                return Mismatch(path, f"must be {IN_WORDS[said['format']]}")
            case "multipleOf":
                return Mismatch(path, f"must be a multiple of {said['multiple_of']}")
            case "propertyNames":
                inner: ValidationError = said["error"]
                reason = self._said(inner.kind, "", inner.instance).reason
                return Mismatch(path, f"has a name that {reason}")
            case name if name in _BOUNDS:
                return Mismatch(path, f"must be {_BOUNDS[name]} {said['limit']}")
            case name if name in _COUNTS:
                bound, what = _COUNTS[name]
                return Mismatch(path, f"has {len(value)} {what}; {bound} {said['limit']}")
            case "falseSchema":
                return Mismatch(path, "nothing may stand here")
            case name:
                return Mismatch(path, f"is not what `{name}` of its schema asks for")

    # -- reading a schema ---------------------------------------------------------------------

    def _read(self, schema: Any, path: str, *, thorough: bool) -> Any:
        """The schema as the engine takes it."""
        if not isinstance(schema, Mapping):
            return schema
        made: dict[str, Any] = {}
        for word, said in schema.items():
            here = below(path, word)
            if word in _MAPS and isinstance(said, Mapping):
                named = word == "patternProperties"
                made[word] = {
                    self._expression(name, here) if named else name: self._read(
                        inner, below(here, name), thorough=thorough
                    )
                    for name, inner in said.items()
                }
            elif word in _LISTS and isinstance(said, Sequence):
                into = "x-choice" if thorough and word in {"anyOf", "oneOf"} else word
                made[into] = [self._read(inner, here, thorough=thorough) for inner in said]
            elif word in _INNER:
                made[word] = self._read(said, here, thorough=thorough)
            elif word == "pattern" and isinstance(said, str):
                made[word] = self._expression(said, path)
                # The engine checks the length before it matches, so a longer text costs nothing
                # (ADR 0036).
                made["maxLength"] = _longest(said, schema.get("maxLength"), path)
            elif word == "format":
                # A format that is not known here forbids nothing.
                made |= {word: said} if said in IN_WORDS else {}
            elif word not in made:
                made[word] = said
        # msgspec describes `bytes` so; as a format it is checked like any other.
        if schema.get("contentEncoding") in IN_WORDS:
            made["format"] = schema["contentEncoding"]
        if thorough and _is_whole(schema):
            made["x-whole"] = True
        return made

    def _expression(self, written: str, path: str) -> str:
        """An author's expression for the engine.

        Raises:
            Misuse: The engine cannot run it.
        """
        read = as_python_reads(written)
        self._written[read] = written
        try:
            Draft202012Validator(
                {"pattern": read}, pattern_options=RegexOptions(size_limit=MAX_EXPRESSION_BYTES)
            )
        except (ValidationError, ValueError) as error:
            raise Misuse(
                f"the expression `{written:.200}` at `{path or '/'}` of the route's type cannot run in "
                "time linear in the text: it looks ahead or behind, refers back to a group, repeats too "
                "much, or is none; write it without (a handler may still use `re` on the value)"
            ) from error
        return read


def _longest(expression: str, wanted: int | None, path: str) -> int:
    """Return the longest text, in characters, that the expression may be matched against.

    Raises:
        Misuse: The schema allows more than can be matched in time.
    """
    places = places_of(expression)
    most = min(MAX_MATCHED, MAX_STEPS // places)
    if most == 0 or (wanted is not None and wanted > most < MAX_MATCHED):
        raise Misuse(
            f"the expression `{expression:.200}` at `{path or '/'}` of the route's type takes too long for texts of "
            f"{wanted or 'any number of'} characters: with its repetitions written out it has {places:,} "
            f"places; write it with fewer, or allow at most {most:,} characters (`max_length=`)"
        )
    return most if wanted is None else min(wanted, most)


def places_of(expression: str) -> int:
    r"""Count the characters and classes of an expression, with its repetitions written out.

    A match holds each character of a text against so many of them at most. Of one class alone, before anything is
    repeated without end, up to 200 repetitions count: seldom more are under way at a time. What makes the engine slower
    counts several times: `\b` beyond ASCII, and a counted repetition of more than eight whose beginning is not certain.
    """
    if _ONE_CLASS.fullmatch(expression):
        # The engine looks at the length alone.
        return 1
    groups, last, alone, endless, weight = [0], 0, False, False, 1
    for piece in _TOKEN.findall(expression):
        if piece[0] == "(" and piece[-1] != ")":
            groups.append(0)
            last = 0
        elif piece == ")" and len(groups) > 1:
            last, alone = groups.pop(), False
            groups[-1] += last
        elif piece[0] == "{" and len(piece) > 2:
            endless = endless or piece.endswith(",}")
            times = max(map(int, _NUMBER.findall(piece)), default=1)
            if alone and not endless:
                times = min(times, MAX_ALONE)
            elif times > MANY_TIMES:
                weight = SLOWER
            groups[-1] += last * (max(times, 1) - 1)
            last = 0
        elif piece[0] in "*+":
            endless = True
        elif piece[0] not in "?|^$":
            groups[-1] += 1
            last, alone = 1, True
    places = max(sum(groups), 1)
    if _WORD_ENDS.search(expression):
        return (places + OF_LETTERS) * SLOWER
    return places * weight


def as_python_reads(expression: str) -> str:
    r"""A Python expression in the engine's words: `\w` and `\d` of every script, `\A` and `\Z`, no ends of words but `\b`."""
    made: list[str] = []
    inside = False
    for piece in _PIECE.findall(expression):
        letter = piece[1:]
        if letter in _PYTHON:
            piece = _PYTHON[letter] if inside else f"[{_PYTHON[letter]}]"
        elif letter.lower() in _PYTHON and not inside:
            piece = f"[^{_PYTHON[letter.lower()]}]"
        elif letter in {"<", ">"}:
            # To Python only the sign itself; to the engine where a word begins and ends.
            piece = letter
        elif letter in {"A", "Z"} and not inside:
            piece = "^" if letter == "A" else "$"
        elif piece == "[" and not inside:
            inside = True
        elif piece == "]" and made[-1:] != ["["] and made[-2:] != ["[", "^"]:
            # The first one in a class stands for itself.
            inside = False
        made.append(piece)
    return "".join(made)


def _may_hold_whole(raw: bytes) -> bool:
    """Return whether a number such as `1.0` or `1e3` stands there, or a text looks like one."""
    if b".0" not in raw:
        # The way nearly every body goes.
        # One pass in C over the body instead of a regular expression: nearly all bodies have no
        # such number.
        alike = raw.translate(_DIGITS_ALIKE)
        if b"0e" not in alike and b"0E" not in alike:
            return False
    return _WHOLE_REAL.search(raw) is not None


def _is_whole(schema: Mapping[str, Any]) -> bool:
    """Return whether a number that may stand here is an integer."""
    if "enum" in schema or "const" in schema:
        named = (*schema.get("enum", ()), schema.get("const"))
        return not any(isinstance(each, float) for each in named)
    said = schema.get("type")
    kinds = [said] if isinstance(said, str) else said or ()
    return "integer" in kinds and "number" not in kinds


def _kind(value: Any) -> str:
    return next((name for name, types in _KINDS if isinstance(value, types)), "value")


def _either(names: Sequence[str]) -> str:
    return " or ".join(names)


def _an(name: str) -> str:
    return f"an {name}" if name[0] in "aeio" else name if name == "null" else f"a {name}"
