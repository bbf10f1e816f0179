"""Whether a value is what a JSON Schema says, and where not: for bodies and queries at the door. Pure.

Reads the vocabulary that msgspec and pydantic write from types. A word it does not know forbids
nothing: the function decodes every value by its own type again.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final

import msgspec

from headrace.model.errors import Invalid
from headrace.model.formats import IN_WORDS, is_of

MAX_DEPTH: Final = 64
_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "object": (dict,), "array": (list,), "string": (str,), "integer": (int,),
    "number": (int, float), "boolean": (bool,), "null": (type(None),),
}  # fmt: skip
_TRUE, _FALSE = frozenset({"true", "1", "on", "yes"}), frozenset({"false", "0", "off", "no"})
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_REAL = re.compile(r"[+-]?[0-9]{1,18}(\.[0-9]{1,18})?([eE][+-]?[0-9]{1,2})?")

Schema = Mapping[str, Any]


class Mismatch(Invalid):
    """A value is not what was asked for.

    Attributes:
        path: Where, as a JSON Pointer; "" is the whole.
    """

    code: ClassVar[str] = "mismatch"

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"`{path or '/'}`: {reason}")
        self.path, self.reason = path, reason


def check(schema: Schema, value: Any) -> None:
    """Pass, where `value` is what `schema` says.

    Raises:
        Mismatch: It is not; the first place that is wrong.
    """
    _Checker(schema).check(schema, value, "", 0)


def coerce(schema: Schema, texts: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """A query's texts as the types an object's schema says; of a single value, the last text.

    Parameters that the schema does not know stay texts.
    """
    checker = _Checker(schema)
    whole = checker.resolve(schema)
    known: Mapping[str, Any] = whole.get("properties", {})
    return {
        name: checker.coerce(known[name], given) if name in known else given[-1]
        for name, given in texts.items()
    }


def coerce_row(schema: Schema, row: Mapping[str, str]) -> dict[str, Any]:
    """A row of texts as the types an object's schema says, field by field.

    Lists and objects are read as JSON. An empty text of a field that is no text is null where that
    may be, and left out where the field may be missing. What may be a text stays one, and so does
    what is not of its type.
    """
    checker = _Checker(schema)
    whole = checker.resolve(schema)
    known: Mapping[str, Any] = whole.get("properties", {})
    required = frozenset(whole.get("required", ()))
    found: dict[str, Any] = {}
    for name, text in row.items():
        kinds = checker.kinds(known.get(name, True))
        if not kinds or "string" in kinds:
            found[name] = text
        elif text or "null" in kinds:
            found[name] = _as(kinds, text)
        elif name in required:
            found[name] = text
    return found


class _Checker:
    def __init__(self, root: Schema) -> None:
        self._root = root

    def resolve(self, schema: Schema) -> Schema:
        """The schema a `$ref` means; schemas are our own, so their references are whole."""
        for _ in range(MAX_DEPTH):
            ref = schema.get("$ref")
            if not isinstance(ref, str):
                return schema
            found: Any = self._root
            for part in ref.removeprefix("#").split("/")[1:]:
                found = found[part.replace("~1", "/").replace("~0", "~")]
            schema = found
        return {}

    def check(self, schema: Any, value: Any, path: str, depth: int) -> None:
        if schema is True or depth > MAX_DEPTH:
            return
        if schema is False:
            raise Mismatch(path, "nothing may stand here")
        schema = self.resolve(schema)
        self._check_type(schema, value, path)
        if "const" in schema and value != schema["const"]:
            raise Mismatch(path, f"must be {schema['const']!r}")
        if "enum" in schema and value not in schema["enum"]:
            choices = ", ".join(repr(each) for each in schema["enum"][:20])
            raise Mismatch(path, f"must be one of {choices}")
        for name in ("anyOf", "oneOf"):
            if name in schema:
                self._check_any(schema[name], schema.get("discriminator"), value, path, depth)
        for part in schema.get("allOf", ()):
            self.check(part, value, path, depth + 1)
        if isinstance(value, str):
            _check_text(schema, value, path)
        elif isinstance(value, dict):
            self._check_object(schema, value, path, depth)
        elif isinstance(value, list):
            self._check_array(schema, value, path, depth)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            _check_number(schema, value, path)

    def _check_type(self, schema: Schema, value: Any, path: str) -> None:
        wanted = schema.get("type")
        if wanted is None:
            return
        names = [wanted] if isinstance(wanted, str) else wanted
        if not any(_is(name, value) for name in names):
            raise Mismatch(path, f"must be {_an(' or '.join(names))}, not {_an(_kind(value))}")

    def _check_any(
        self, choices: Sequence[Any], chooser: Any, value: Any, path: str, depth: int
    ) -> None:
        if isinstance(chooser, dict) and isinstance(value, dict):
            name, mapping = chooser.get("propertyName"), chooser.get("mapping", {})
            tag = value.get(name)
            if isinstance(tag, (str, int)) and str(tag) in mapping:
                self.check({"$ref": mapping[str(tag)]}, value, path, depth + 1)
                return
            if name in value:
                known = ", ".join(repr(each) for each in list(mapping)[:20])
                raise Mismatch(_below(path, str(name)), f"must be one of {known}")
        failed: list[Mismatch] = []
        for choice in choices:
            try:
                self.check(choice, value, path, depth + 1)
            except Mismatch as error:
                failed.append(error)
            else:
                return
        if failed:
            # The choice that came furthest is the one that was meant.
            deepest = max(failed, key=lambda error: len(error.path))
            if len(deepest.path) > len(path):
                raise deepest
            raise Mismatch(path, "; or ".join(dict.fromkeys(error.reason for error in failed)))

    def _check_object(self, schema: Schema, value: dict[str, Any], path: str, depth: int) -> None:
        for name in schema.get("required", ()):
            if name not in value:
                raise Mismatch(_below(path, name), "is missing")
        known: Mapping[str, Any] = schema.get("properties", {})
        others = schema.get("additionalProperties", True)
        for name, member in value.items():
            if name in known:
                self.check(known[name], member, _below(path, name), depth + 1)
            elif others is False:
                raise Mismatch(_below(path, name), "is unknown here")
            elif others is not True:
                self.check(others, member, _below(path, name), depth + 1)
        _check_count(schema, len(value), path, "minProperties", "maxProperties", "members")

    def _check_array(self, schema: Schema, value: list[Any], path: str, depth: int) -> None:
        _check_count(schema, len(value), path, "minItems", "maxItems", "items")
        first: Sequence[Any] = schema.get("prefixItems", ())
        rest = schema.get("items", True)
        for index, member in enumerate(value):
            part = first[index] if index < len(first) else rest
            self.check(part, member, _below(path, str(index)), depth + 1)

    def coerce(self, schema: Any, given: Sequence[str]) -> Any:
        """Texts as what the schema of one parameter says, where they can be; else as they are."""
        for choice in self._choices(schema):
            if choice.get("type") == "array":
                return [self.coerce(choice.get("items", {}), [text]) for text in given]
        return _as(self.kinds(schema) - {"array", "object"}, given[-1])

    def kinds(self, schema: Any) -> set[str]:
        """The types a value may have; none where the schema does not say."""
        found: set[str] = set()
        for choice in self._choices(schema):
            said = choice.get("type")
            found |= {said} if isinstance(said, str) else set(said or ())
        return found

    def _choices(self, schema: Any) -> list[Schema]:
        if not isinstance(schema, Mapping):
            return []
        schema = self.resolve(schema)
        return [
            self.resolve(choice) for choice in schema.get("anyOf", schema.get("oneOf", [schema]))
        ]


def _as(kinds: set[str], text: str) -> Any:
    if "integer" in kinds and _WHOLE.fullmatch(text):
        return int(text)
    if "number" in kinds and _REAL.fullmatch(text):
        return float(text)
    if "boolean" in kinds and text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    if "null" in kinds and "string" not in kinds and text == "":
        return None
    if kinds & {"array", "object"} and text[:1] in {"[", "{"}:
        return _json_or_text(text)
    return text


def _json_or_text(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return text


def _is(name: str, value: Any) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    if name == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES.get(name, (object,)))


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    return next((name for name, types in _TYPES.items() if isinstance(value, types)), "value")


def _an(name: str) -> str:
    return f"an {name}" if name[0] in "aeio" else name if name == "null" else f"a {name}"


def _below(path: str, name: str) -> str:
    return f"{path}/{name.replace('~', '~0').replace('/', '~1')}"


def _check_count(schema: Schema, count: int, path: str, least: str, most: str, what: str) -> None:
    if count < schema.get(least, 0):
        raise Mismatch(path, f"has {count} {what}; at least {schema[least]}")
    if most in schema and count > schema[most]:
        raise Mismatch(path, f"has {count} {what}; at most {schema[most]}")


def _check_text(schema: Schema, value: str, path: str) -> None:
    _check_count(schema, len(value), path, "minLength", "maxLength", "characters")
    if "pattern" in schema and _pattern(schema["pattern"]).search(value) is None:
        raise Mismatch(path, f"must match `{schema['pattern']}`")
    said = schema.get("format", schema.get("contentEncoding"))
    if isinstance(said, str) and not is_of(said, value):
        raise Mismatch(path, f"must be {IN_WORDS[said]}")


_BOUNDS: Final[tuple[tuple[str, Callable[[Any, Any], bool], str], ...]] = (
    ("minimum", lambda value, bound: value >= bound, "at least"),
    ("maximum", lambda value, bound: value <= bound, "at most"),
    ("exclusiveMinimum", lambda value, bound: value > bound, "more than"),
    ("exclusiveMaximum", lambda value, bound: value < bound, "less than"),
)


def _check_number(schema: Schema, value: float, path: str) -> None:
    for name, holds, words in _BOUNDS:
        if name in schema and not holds(value, schema[name]):
            raise Mismatch(path, f"must be {words} {schema[name]}")
    step = schema.get("multipleOf")
    if step and value % step:
        raise Mismatch(path, f"must be a multiple of {step}")


@functools.lru_cache(maxsize=256)
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text)
