"""One settings file: its tables, and on which line each of them stands.

In: a path. Out: plain values and `file:line` for every key, so that errors can name the place of a
wrong value. Refuses what is not TOML and unknown keys. Reads, never writes.
"""

from __future__ import annotations

import difflib
import tomllib
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from headrace.model.errors import Misuse
from headrace.model.former_names import renamed


class SettingsFile:
    """A file that has been read. Immutable."""

    def __init__(
        self, path: Path, values: dict[str, Any], lines: dict[tuple[str, ...], int]
    ) -> None:
        self.path = path
        self._values = values
        self._lines = lines

    @classmethod
    def read(cls, path: Path) -> SettingsFile:
        """Open and parse the file.

        Raises:
            Misuse: It cannot be read, or is not TOML.
        """
        try:
            text = path.read_bytes().decode()
        except OSError as error:
            raise Misuse(
                f"the settings file `{path}` cannot be read: {error.strerror}; "
                "correct `--config` or `HEADRACE_CONFIG`"
            ) from error
        except UnicodeDecodeError as error:
            raise Misuse(f"{path}: is not UTF-8 text; save it as UTF-8") from error
        try:
            values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise Misuse(
                f"{path}: is not TOML: {error}; see https://toml.io for the syntax"
            ) from error
        return cls(path, values, line_numbers(text))

    def table(self, *path: str) -> dict[str, Any]:
        """The table at `path`; empty where there is none.

        Raises:
            Misuse: Something else than a table stands there.
        """
        table = self._values
        for depth, key in enumerate(path):
            found = table.get(key, {})
            if not isinstance(found, dict):
                here = path[: depth + 1]
                raise Misuse(
                    f"{self.where(*here)}: `{'.'.join(here)}` must be a table; write `[{'.'.join(here)}]`"
                )
            table = found
        return table

    def where(self, *path: str) -> str:
        """`file:line` of the key, or of the nearest table around it."""
        for depth in range(len(path), 0, -1):
            if (line := self._lines.get(path[:depth])) is not None:
                return f"{self.path}:{line}"
        return str(self.path)

    def only_keys(self, path: tuple[str, ...], known: Iterable[str]) -> None:
        """Check that the table at `path` holds no other keys than `known`.

        Raises:
            Misuse: It does; the message has the line and a near name.
        """
        names = list(known)
        for key in self.table(*path):
            if key not in names:
                inside = f"`[{'.'.join(path)}]`" if path else "this file"
                raise Misuse(
                    f"{self.where(*path, key)}: `{key}` is unknown in {inside}{nearest(key, names)}; "
                    f"known are {', '.join(f'`{name}`' for name in names) or 'none'}"
                )


def line_numbers(text: str) -> dict[tuple[str, ...], int]:
    """On which line (from 1) each table header and key of a TOML text stands."""
    found: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), start=1):
        bare = line.strip()
        if bare.startswith("["):
            path = _path_in(bare.split("#")[0].strip())
            if path:
                table = path
                found.setdefault(table, number)
        elif "=" in bare and not bare.startswith("#"):
            path = _path_in(bare.split("=", 1)[0] + " = 0")
            for depth in range(1, len(path) + 1):
                found.setdefault((*table, *path[:depth]), number)
    return found


def _path_in(fragment: str) -> tuple[str, ...]:
    # A line out of the middle of a multi-line value is not TOML by itself: it names no key.
    try:
        found: Any = tomllib.loads(fragment)
    except tomllib.TOMLDecodeError:
        return ()
    path: list[str] = []
    while isinstance(found, dict) and len(found) == 1:
        ((key, found),) = found.items()
        path.append(key)
        if isinstance(found, list) and found:
            found = found[0]
    return tuple(path)


def nearest(
    name: str, names: Iterable[str], prefix: str = "", shape: Callable[[str], str] = str
) -> str:
    """` (did you mean X?)` where a known name is near or replaced this one, else nothing."""
    names = list(names)
    if now := renamed(name, names):
        return now
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f" (did you mean `{prefix}{shape(near[0])}`?)" if near else ""


def choices(kind: Any, value: object) -> str:
    """`use ... or ...` where a value is one of a few words and this is none of them, else ""."""
    words = [
        each if isinstance(each, str) else str(each.__struct_config__.tag)
        for each in typing.get_args(kind)
        if isinstance(each, str) or hasattr(each, "__struct_config__")
    ]
    if len(words) < 2 or not isinstance(value, str) or value in words:
        return ""
    return f"use {' or '.join(f'`{word}`' for word in words)}{nearest(value, words)}"
