"""Types of many functions as the components of one OpenAPI document, each under a unique name. Pure.

A type keeps its name where that is free; where another app has it, the app's name goes before it, and
where another type of the same app has that too, a number behind it. Types are the same where they are
of one app and alike in all they are made of.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import chain, count
from typing import Any

import msgspec

_NO_COMPONENT = re.compile(r"[^A-Za-z0-9._-]")
# Deterministic: equal types must give equal bytes, whatever the order of their members.
_encode = msgspec.json.Encoder(order="deterministic").encode


class Components:
    """The components of a document that is being written.

    Attributes:
        schemas: By name, as OpenAPI has them.
    """

    def __init__(self, schemas: Mapping[str, Any]) -> None:
        self.schemas: dict[str, Any] = dict(schemas)
        self._held: dict[str, tuple[str, bytes] | None] = dict.fromkeys(schemas)

    def lift(self, schema: Mapping[str, Any], app: str) -> dict[str, Any]:
        """The schema without its definitions, which are among the components from now on."""
        definitions: dict[str, Any] = schema.get("$defs", {})
        names = {name: self._name(name, definitions, app) for name in definitions}
        for name, definition in definitions.items():
            self.schemas[names[name]] = {**_moved(definition, names), "x-app": app}
        found: dict[str, Any] = _moved(
            {name: value for name, value in schema.items() if name != "$defs"}, names
        )
        return found

    def resolve(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Resolve a reference; anything else stays as it is."""
        reference = schema.get("$ref")
        if reference is None:
            return schema
        found: dict[str, Any] = self.schemas[_last(reference)]
        return found

    def _name(self, name: str, definitions: dict[str, Any], app: str) -> str:
        """The name of a type, which nothing else has."""
        # With all it refers to: two types with equal fields differ if a type they refer to does.
        content = (app, _encode({each: definitions[each] for each in _within(name, definitions)}))
        # OpenAPI allows only these characters in a component's name; generic types have brackets.
        plain = _NO_COMPONENT.sub("_", name)
        moved = f"{app}.{plain}"
        tried = chain((plain, moved), (f"{moved}.{number}" for number in count(2)))
        free = next(each for each in tried if self._held.get(each, content) == content)
        self._held[free] = content
        return free


def _within(name: str, definitions: dict[str, Any]) -> set[str]:
    """The names of the definition and of all it refers to."""
    # A loop, not recursion: types may refer to each other in a circle.
    found, left = {name}, [definitions[name]]
    while left:
        value = left.pop()
        if isinstance(value, list):
            left.extend(value)
        elif isinstance(value, dict):
            left.extend(value.values())
            other = _last(str(value.get("$ref", "")))
            if other in definitions and other not in found:
                found.add(other)
                left.append(definitions[other])
    return found


def _moved(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {
            name: f"#/components/schemas/{names[_last(member)]}"
            # A property may be called `$ref` too: then its value is a schema, not a text.
            if name == "$ref" and isinstance(member, str) and _last(member) in names
            else _moved(member, names)
            for name, member in value.items()
        }
    if isinstance(value, list):
        return [_moved(member, names) for member in value]
    return value


def _last(reference: str) -> str:
    return reference.rpartition("/")[2]
