"""Transformation of events by a rule: the part at a path, or a template with values put in. Pure.

The language is EventBridge's input transformer (`InputPath`, `InputPathsMap`, `InputTemplate`).
Within quotes a value stands bare (texts as they are, objects and arrays without their quotes, what
is absent as nothing); elsewhere it is JSON, and what is absent is null. Bad paths and templates are
refused when the rule is deployed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from headrace.model.errors import Misuse
from headrace.model.triggers.bus import Rule

Transform = Callable[[Mapping[str, Any], str, str], bytes]
"""From the event as shown, the rule's name and the time it was taken in, to the new value."""

_PLACE: Final = re.compile(r"<([A-Za-z0-9_.-]+)>")
_STEP: Final = re.compile(r"\.([^.\[\]'\"]+)|\['([^']*)'\]|\[\"([^\"]*)\"\]|\[(\d{1,9})\]")
_QUOTES: Final = re.compile(r'\\.|"')
# Not None: null is a value that an event may have.
_ABSENT: Final[Any] = object()
_PREDEFINED: Final = frozenset(
    [
        "aws.events.rule-arn",
        "aws.events.rule-name",
        "aws.events.event.ingestion-time",
        "aws.events.event",
        "aws.events.event.json",
    ]
)
_encode: Final = msgspec.json.Encoder().encode


def transform_of(rule: Rule) -> Transform | None:
    """The transformation that a rule declares; None where it leaves events as they are.

    Raises:
        Misuse: The path or the template cannot be read.
    """
    if rule.path is not None:
        steps = _steps(rule.path)
        return lambda event, rule, time: _json(_at(event, steps))
    if rule.template is None:
        return None
    return _Template(rule.template, {name: _steps(path) for name, path in rule.paths.items()})


def _steps(path: str) -> tuple[str | int, ...]:
    if not path.startswith("$"):
        raise Misuse(f'the path `{path}` must begin with `$`, as in "$.detail.order"')
    steps: list[str | int] = []
    at = 1
    while at < len(path):
        step = _STEP.match(path, at)
        if step is None:
            raise Misuse(
                f"the path `{path}` cannot be read from `{path[at:]}`; write members and indices, "
                'such as "$.detail.items[0].sku"'
            )
        steps.append(int(step[4]) if step[4] is not None else step[1] or step[2] or step[3] or "")
        at = step.end()
    return tuple(steps)


def _at(value: Any, steps: tuple[str | int, ...]) -> Any:
    for step in steps:
        if isinstance(step, int):
            value = value[step] if isinstance(value, list) and step < len(value) else _ABSENT
        else:
            value = value.get(step, _ABSENT) if isinstance(value, Mapping) else _ABSENT
    return value


class _Template:
    """A template cut at its places; called as a `Transform`."""

    def __init__(self, text: str, paths: Mapping[str, tuple[str | int, ...]]) -> None:
        self._paths = paths
        self._pieces: list[tuple[str, str, bool]] = []
        at, quoted = 0, False
        for place in _PLACE.finditer(text):
            name = place[1]
            if name not in paths and name not in _PREDEFINED:
                raise Misuse(
                    f"the template names `<{name}>`, which `paths=` does not; it has "
                    f"{', '.join(paths) or 'none'}"
                )
            before = text[at : place.start()]
            quoted = _is_quoted(before, quoted)
            self._pieces.append((before, name, quoted))
            at = place.end()
        self._end = text[at:]
        # Tried with null in every place: a template that is not JSON is refused at deployment, not
        # at an event.
        sample = "".join(before + ("" if bare else "null") for before, _, bare in self._pieces)
        try:
            msgspec.json.decode(sample + self._end)
        except msgspec.DecodeError as error:
            raise Misuse(
                f"the template is not JSON ({error}); write JSON, or a text in quotes, with "
                "`<name>` where values go"
            ) from error

    def __call__(self, event: Mapping[str, Any], rule: str, time: str) -> bytes:
        text = ""
        for before, name, bare in self._pieces:
            value = self._value(name, event, rule, time)
            text += before + (_bare(value) if bare else _json(value).decode())
        return (text + self._end).encode()

    def _value(self, name: str, event: Mapping[str, Any], rule: str, time: str) -> Any:
        if name in self._paths:
            return _at(event, self._paths[name])
        match name:
            case "aws.events.event.ingestion-time":
                return time
            case "aws.events.event.json":
                return event
            case "aws.events.event":
                return {
                    "detailType" if member == "detail-type" else member: value
                    for member, value in {**event, "time": time}.items()
                    # EventBridge's `aws.events.event` has no detail; the others are ours, and
                    # would surprise its users.
                    if member not in {"detail", "stream", "key", "headers"}
                }
            case _:
                return rule


def _is_quoted(text: str, quoted: bool) -> bool:
    """Return True where the end of `text` is within quotes."""
    escaped = False
    for char in text:
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = True
        elif char == '"':
            quoted = not quoted
    return quoted


def _json(value: Any) -> bytes:
    return b"null" if value is _ABSENT else _encode(value)


def _bare(value: Any) -> str:
    """The value within a JSON text: no quotes around it or in it, and still well formed."""
    if value is _ABSENT:
        return ""
    if isinstance(value, str):
        # Escaped as JSON, without its quotes: a value must not be able to end the text that it is
        # put in.
        return _encode(value).decode()[1:-1]
    return _unquoted(_encode(value).decode())


def _unquoted(text: str) -> str:
    # Escapes are matched as a whole, so that no half of one is left.
    return _QUOTES.sub(lambda found: "" if found[0].endswith('"') else found[0], text)
