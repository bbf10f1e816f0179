"""Write `docs/reference/python.md` from signatures and docstrings: `make reference`.

The names are those of `__all__` in the public modules, read from the source without importing it
(griffe). `--check` writes nothing, and fails where the page differs.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

import griffe

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference" / "python.md"
MODULES = (
    "headrace",
    "headrace.sources",
    "headrace.webhooks",
    "headrace.windows",
    "headrace.bus",
    "headrace.client",
    "headrace.errors",
    "headrace.testing",
)
TYPES = {
    "Seconds": "Duration",
    "MaybeSeconds": "Duration | None",
    "Bytes": "Size",
    "MaybeBytes": "Size | None",
    "ExceptionNames": "type[BaseException] | str | Iterable[type[BaseException] | str]",
}
"""What a field takes, where its declaration names what it holds."""
OF_THE_PLATFORM = {
    "AsyncClient": {"run"},
    "Client": {"request", "run"},
    "Message": {"envelope"},
    "App": {"awaits", "close_left_open", "close_resources", "init_hooks", "lend", "spec"},
    "Queue": {"settings"},
    "Reply": {"pack"},
    "Resource": {"lend"},
    "Setting": {"has_value", "read"},
}
"""Members that the platform calls, and no author."""
INTRO = """# The Python API

Every public name, with its signature. The page is made from the code by `make reference`; other pages say what
the names are for: [triggers](triggers.md), [policies, options and limits](policies.md), [errors](errors.md).

A `Duration` is a number of seconds, a text such as `"5m"` or a `timedelta`; a `Size` is a number of bytes or a text
such as `"64MiB"`: see [durations](policies.md#durations) and [sizes](policies.md#sizes).
"""
_WIDTH = 100
_FIELD_DEFAULT = re.compile(r"(?:default|no_exceptions)\((.*)\)", re.DOTALL)


def main(*, check: bool) -> int:
    """Write the page, or say that it differs."""
    written = page()
    if not check:
        PAGE.write_text(written)
        return 0
    if PAGE.exists() and PAGE.read_text() == written:
        return 0
    sys.stdout.write(f"{PAGE.relative_to(ROOT)} is not what the code says; run `make reference`\n")
    return 1


def page() -> str:
    """The page's text."""
    package = griffe.load("headrace", search_paths=[ROOT / "src"], resolve_aliases=True)
    modules = [
        (name, package[name.partition(".")[2]] if "." in name else package) for name in MODULES
    ]
    parts = [INTRO.strip()]
    for name, module in modules:
        names = sorted(module.exports or (), key=lambda each: (str(each).lower(), str(each)))
        links = ", ".join(f"[`{each}`](#{_anchor(name, str(each))})" for each in names)
        parts += [f"## `{name}`", _docs(module), _filled(links)]
        for each in names:
            parts += _entry(name, str(each), module[str(each)])
    return "\n\n".join(part for part in parts if part) + "\n"


def _anchor(module: str, name: str) -> str:
    return re.sub(r"[^\w\- ]", "", f"{module}.{name}".lower())


def _entry(module: str, name: str, found: griffe.Object | griffe.Alias) -> Iterator[str]:
    yield f"### `{module}.{name}`"
    if found.is_class:
        yield _code(f"class {name}", _parameters_of_class(found))
        yield _docs(found)
        for member in _members(found):
            if member.is_function:
                yield f"#### `{name}.{member.name}`"
                yield _code(_heading(member), member.parameters, _returns(member))
                yield _docs(member)
            elif "property" in member.labels:
                yield f"#### `{name}.{member.name}`"
                yield f"```py\n{member.name}: {_type(member.annotation) or 'Any'}\n```"
                yield _docs(member)
        return
    if found.is_function:
        yield _code(_heading(found), found.parameters, _returns(found))
        yield _docs(found)
        return
    value = "" if found.value is None else f" = {found.value}"
    kind = f": {_type(found.annotation)}" if found.annotation else ""
    yield f"```py\n{name}{kind}{value}\n```"
    yield _docs(found)


def _members(found: griffe.Object | griffe.Alias) -> list[griffe.Object | griffe.Alias]:
    """What authors call and read; of a struct, the fields are all there is to it."""
    if "__init__" not in found.all_members and found.name not in {"Event", "State", "Store"}:
        return []
    hidden = OF_THE_PLATFORM.get(found.name, set())
    return [
        member
        for name, member in sorted({**found.inherited_members, **found.members}.items())
        if name not in hidden and not name.startswith("_")
        if (member.is_function or member.is_attribute) and member.docstring
    ]


def _heading(function: griffe.Object | griffe.Alias) -> str:
    return f"{'async ' if 'async' in function.labels else ''}def {function.name}"


def _returns(function: griffe.Object | griffe.Alias) -> str:
    return f" -> {_type(function.returns)}" if function.returns else ""


def _parameters_of_class(found: griffe.Object | griffe.Alias) -> griffe.Parameters:
    """Those of its constructor; of a struct, its fields, the base's first."""
    if (made := found.all_members.get("__init__")) is not None and made.is_function:
        return made.parameters
    fields: dict[str, griffe.Parameter] = {}
    for each in (*reversed(found.mro()), found):
        kind = (
            griffe.ParameterKind.keyword_only
            if "kw_only=True" in str(each.source).partition(":\n")[0]
            else griffe.ParameterKind.positional_or_keyword
        )
        for name, member in each.members.items():
            is_field = member.is_attribute and member.annotation and "property" not in member.labels
            if is_field and not name.startswith("_") and "ClassVar" not in str(member.annotation):
                default = None if member.value is None else str(member.value)
                fields[name] = griffe.Parameter(
                    name, annotation=member.annotation, kind=kind, default=default
                )
    by_place = griffe.ParameterKind.positional_or_keyword
    return griffe.Parameters(*sorted(fields.values(), key=lambda each: each.kind is not by_place))


def _code(heading: str, parameters: griffe.Parameters, returns: str = "") -> str:
    shown = [*_shown(parameters)]
    line = f"{heading}({', '.join(shown)}){returns}"
    if len(line) > _WIDTH and shown:
        rows = "".join(f"    {each},\n" for each in shown)
        line = f"{heading}(\n{rows}){returns}"
    return f"```py\n{line}\n```"


def _shown(parameters: griffe.Parameters) -> Iterator[str]:
    starred = False
    for place, each in enumerate(parameters):
        if place == 0 and each.name in {"self", "cls"}:
            continue
        if each.kind is griffe.ParameterKind.var_positional:
            starred = True
        elif each.kind is griffe.ParameterKind.keyword_only and not starred:
            starred = True
            yield "*"
        yield _parameter(each)


def _parameter(each: griffe.Parameter) -> str:
    stars = {
        griffe.ParameterKind.var_positional: "*",
        griffe.ParameterKind.var_keyword: "**",
    }.get(each.kind, "")
    kind = f": {_type(each.annotation)}" if each.annotation else ""
    given = "" if each.default is None or stars else str(each.default)
    if found := _FIELD_DEFAULT.fullmatch(given):
        given = found[1] or "()"
    equals = " = " if kind else "="
    return f"{stars}{each.name}{kind}{equals if given else ''}{given}"


def _type(annotation: object) -> str:
    text = re.sub(r"\bheadrace\.[\w.]+\.(\w+)", r"\1", str(annotation or ""))
    return re.sub(r"\b\w+\b", lambda word: TYPES.get(word[0], word[0]), text)


def _docs(found: griffe.Object | griffe.Alias) -> str:
    if found.docstring is None:
        return ""
    parts = []
    # Options that a docstring explains are behind `**settings`, which the parser would warn of.
    sections = found.docstring.parse("google", warn_unknown_params=False, warnings=False)
    has_both = {griffe.DocstringSectionKind.parameters, griffe.DocstringSectionKind.attributes} <= {
        section.kind for section in sections
    }
    for section in sections:
        match section.kind:
            case griffe.DocstringSectionKind.text:
                parts.append(section.value)
            case griffe.DocstringSectionKind.parameters | griffe.DocstringSectionKind.attributes:
                if has_both:
                    parts.append(f"{section.kind.value.capitalize()}:")
                parts.append(_list((f"`{each.name}`", each.description) for each in section.value))
            case griffe.DocstringSectionKind.raises:
                raised = (
                    (f"`{_type(each.annotation)}`", each.description) for each in section.value
                )
                parts.append(f"Raises:\n\n{_list(raised)}")
            case griffe.DocstringSectionKind.returns | griffe.DocstringSectionKind.yields:
                parts.append("\n".join(each.description for each in section.value))
            case griffe.DocstringSectionKind.examples:
                parts += [f"```py\n{text}\n```" for _, text in section.value]
            case _:
                raise SystemExit(f"{found.path}: a section `{section.kind}` is not written yet")
    return "\n\n".join(parts)


def _list(rows: Iterable[tuple[str, str]]) -> str:
    return "\n".join(_filled(f"- {name}: {' '.join(text.split())}", "  ") for name, text in rows)


def _filled(text: str, indent: str = "") -> str:
    """The text in lines of the pages' width."""
    return textwrap.fill(
        text, 118, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv))
