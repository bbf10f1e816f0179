"""JSON Schemas of authors' types, as far as texts need them: what a query's or a row's texts become. Pure.

Reads the vocabulary that msgspec and pydantic write from types. Whether a value is what a schema says
is checked by `triggers/schemas`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

import msgspec

from headrace.model.errors import Invalid
from headrace.model.numeric_text import real, whole

MAX_DEPTH: Final = 64
_TRUE, _FALSE = frozenset({"true", "1", "on", "yes"}), frozenset({"false", "0", "off", "no"})

Schema = Mapping[str, Any]


class Mismatch(Invalid):
    """A value is not what was asked for.

    Attributes:
        path: Where, as a JSON Pointer; "" is the whole.
    """

    code: ClassVar[str] = "mismatch"

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"`{path or '/'}`: {reason}")
        self.path = path
        self.reason = reason


def below(path: str, name: str) -> str:
    """The JSON Pointer of a member of what is at `path`."""
    return f"{path}/{name.replace('~', '~0').replace('/', '~1')}"


def coerce(schema: Schema, texts: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """A query's texts as the types an object's schema says; of a single value, the last text.

    Parameters that the schema does not know stay texts.
    """
    reader = _SchemaReader(schema)
    described = reader.resolve(schema)
    known: Mapping[str, Any] = described.get("properties", {})
    return {
        name: reader.coerce(known[name], given) if name in known else given[-1]
        for name, given in texts.items()
    }


def names_in(schema: Schema) -> frozenset[str]:
    """The names of an object's members that the schema knows."""
    return frozenset(_SchemaReader(schema).resolve(schema).get("properties", {}))


def coerce_row(schema: Schema, row: Mapping[str, str]) -> dict[str, Any]:
    """A row of texts as the types an object's schema says, field by field.

    Lists and objects are read as JSON. An empty text of a field that is not text is null where that
    may be, and left out where the field may be missing. What may be a text stays one, and so does
    what is not of its type.
    """
    reader = _SchemaReader(schema)
    described = reader.resolve(schema)
    known: Mapping[str, Any] = described.get("properties", {})
    required = frozenset(described.get("required", ()))
    found: dict[str, Any] = {}
    for name, text in row.items():
        kinds = reader.kinds(known.get(name, True))
        if not kinds or "string" in kinds:
            found[name] = text
        elif text or "null" in kinds:
            found[name] = _as(kinds, text)
        elif name in required:
            found[name] = text
    return found


def may_be_object(schema: Schema) -> bool:
    """Return whether an object may be what the schema says."""
    kinds = _SchemaReader(schema).kinds(schema)
    return not kinds or "object" in kinds


class _SchemaReader:
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

    def coerce(self, schema: Any, given: Sequence[str]) -> Any:
        """Texts as what the schema of one parameter says, where they can be; else as they are."""
        choices = self._choices(schema)
        for choice in choices:
            if choice.get("type") == "array":
                return [self.coerce(choice.get("items", {}), [text]) for text in given]
        if any(given[-1] in _named(choice) for choice in choices):
            return given[-1]
        return _as(self.kinds(schema) - {"array", "object"}, given[-1])

    def kinds(self, schema: Any) -> set[str]:
        """The types a value may have; none where the schema does not say."""
        found: set[str] = set()
        for choice in self._choices(schema):
            said = choice.get("type")
            found |= {said} if isinstance(said, str) else set(said or ())
            if said is None:
                # What is one of a few values is of their types.
                found |= {_KINDS.get(type(each), "string") for each in _named(choice)}
        return found

    def _choices(self, schema: Any, depth: int = 0) -> list[Schema]:
        if not isinstance(schema, Mapping) or depth > MAX_DEPTH:
            return []
        schema = self.resolve(schema)
        several = schema.get("anyOf", schema.get("oneOf"))
        if several is None:
            return [schema]
        return [each for choice in several for each in self._choices(choice, depth + 1)]


_KINDS: Final[dict[type, str]] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    type(None): "null",
}


def _named(schema: Schema) -> list[Any]:
    """The values that `enum` or `const` lists."""
    if "const" in schema:
        return [schema["const"]]
    return list(schema.get("enum", ()))


def _as(kinds: set[str], text: str) -> Any:
    number: float | None = None
    if "integer" in kinds:
        number = whole(text)
    if number is None and "number" in kinds:
        number = real(text)
    if number is not None:
        return number
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
