"""Texts that stand for something: times, dates, ids, numbers, bytes. Pure.

In: a type and the JSON Schema made of it. Out: the same with a `format` where msgspec leaves one out, so
that the HTTP server, which never loads the author's types, can refuse a text that the function could not
open. A format that is not known here forbids nothing.
"""

from __future__ import annotations

import datetime
import decimal
import uuid
from typing import Any, Final

import msgspec
from msgspec import inspect

_OPENED_AS: Final[dict[str, Any]] = {
    "date-time": datetime.datetime,
    "date": datetime.date,
    "time": datetime.time,
    "duration": datetime.timedelta,
    "uuid": uuid.UUID,
    "decimal": decimal.Decimal,
    "base64": bytes,
}
IN_WORDS: Final = {
    "date-time": "a time as RFC 3339 writes it, such as 2026-01-31T12:00:00Z",
    "date": "a date such as 2026-01-31",
    "time": "a time of day such as 12:00:00",
    "duration": "a span as ISO 8601 writes it, such as PT5M",
    "uuid": "a UUID",
    "decimal": "a decimal number",
    "base64": "base64",
}


def is_of(format: str, text: str) -> bool:
    """Return whether `text` is of the format, or the format is none of ours."""
    if format not in _OPENED_AS:
        return True
    try:
        msgspec.convert(text, _OPENED_AS[format])
    except (msgspec.ValidationError, ValueError):
        return False
    return True


def stamp(of: Any, schema: dict[str, Any]) -> None:
    """Note in the schema of the type which of its texts are times."""
    try:
        known = inspect.type_info(of)
    except (TypeError, NotImplementedError):
        return
    _Stamp(schema).put(known, schema)


class _Stamp:
    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._seen: set[int] = set()

    def put(self, of: inspect.Type, schema: Any) -> None:
        if not isinstance(schema, dict):
            return
        if isinstance(ref := schema.get("$ref"), str):
            schema = self._root.get("$defs", {}).get(ref.rpartition("/")[2], {})
            if id(schema) in self._seen:
                return
            self._seen.add(id(schema))
        match of:
            case inspect.Metadata(type=inner):
                self.put(inner, schema)
            case inspect.DateTimeType():
                schema.setdefault("format", "date-time")
            case inspect.TimeType():
                schema.setdefault("format", "time")
            case inspect.StructType() | inspect.DataclassType() | inspect.TypedDictType():
                properties = schema.get("properties", {})
                for field in of.fields:
                    self.put(field.type, properties.get(field.encode_name))
            case inspect.CollectionType(item_type=inner):
                self.put(inner, schema.get("items"))
            case inspect.DictType(value_type=inner):
                self.put(inner, schema.get("additionalProperties"))
            case inspect.UnionType(types=types):
                self._put_union(types, schema.get("anyOf", []))
            case _:
                pass

    def _put_union(self, types: tuple[inspect.Type, ...], choices: list[Any]) -> None:
        texts = [
            each for each in choices if isinstance(each, dict) and each.get("type") == "string"
        ]
        objects = {
            str(each["$ref"]).rpartition("/")[2]: each
            for each in choices
            if isinstance(each, dict) and "$ref" in each
        }
        for of in types:
            inner = of.type if isinstance(of, inspect.Metadata) else of
            # Of one union msgspec takes one kind of text only.
            if isinstance(inner, inspect.DateTimeType | inspect.TimeType) and len(texts) == 1:
                self.put(inner, texts[0])
            elif isinstance(inner, _WITH_FIELDS):
                self.put(inner, objects.get(inner.cls.__name__))


_WITH_FIELDS = (inspect.StructType, inspect.DataclassType, inspect.TypedDictType)
