"""An app's settings, and what of the node's environment it is given: declarations and values. Pure.

An author declares settings and names variables; the operator gives values in `headrace.toml`, in
`HEADRACE_APP_*` variables or by `--set`. What is here only says which value is meant, and which
variables a pattern names; nothing here reads a file or an environment.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

import msgspec

OWN_PREFIX: Final = "HEADRACE"
"""Variables that begin so are the node's own, and handed to no app."""
APP_PREFIX: Final = "HEADRACE_APP_"
MAX_VARIABLES_BYTES: Final = 1 << 20
"""What the variables that are passed on to one app may take, names and values together."""
SETTING_NAME: Final = re.compile(r"[A-Z][A-Z0-9_]{0,63}")


class SettingValue(msgspec.Struct, frozen=True, array_like=True):
    """A value that an operator gave to a setting.

    Attributes:
        name: The setting's full name, `shop.RATE`, or its form in a variable, `SHOP_RATE`.
        value: As it was read.
        where: The file and line, the variable or the option that it was read from.
        from_text: Whether it is a text that stands for a value of another type.
    """

    name: str
    value: Any
    where: str
    from_text: bool = False

    def matches(self, name: str) -> bool:
        """Return whether this is meant for the setting of that full name."""
        return self.name in (name, variable_form(name))


class SettingSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A setting as its app declares it, and where its value comes from; never the value itself.

    Attributes:
        name: The name within the app, such as `RATE`.
        type: The type's name.
        default: The default as Python writes it; None where there is none.
        where: Where its value was given; "" for none.
    """

    name: str
    type: str
    default: str | None = None
    where: str = ""

    @property
    def is_missing(self) -> bool:
        """Return whether it has no value at all."""
        return self.default is None and not self.where


class Provision(msgspec.Struct, frozen=True, array_like=True):
    """Values that one app is given when it is imported: its settings' values, and variables by name.

    `generation` says how often what operators gave had changed by then.
    """

    settings: list[SettingValue] = []
    variables: dict[str, str] = {}
    generation: int = 0


class ImportEnvironment(msgspec.Struct, frozen=True, array_like=True):
    """Everything that apps of this node may be given.

    Attributes:
        settings: Values of settings of all apps, in order of precedence, the last one winning.
        variables: The node's environment without what is the node's own.
        generation: How often the values have changed since the node started.
    """

    settings: list[SettingValue] = []
    variables: dict[str, str] = {}
    generation: int = 0

    def of(self, app: str, patterns: Sequence[str]) -> Provision:
        """The part for one app: its own settings, and the variables that match a pattern.

        Beyond `MAX_VARIABLES_BYTES` variables are left out, in the order of their names.
        """
        prefixes = (f"{app}.", f"{variable_form(app)}_")
        found: dict[str, str] = {}
        size = 0
        for name in sorted(self.variables):
            if any(fnmatchcase(name, pattern) for pattern in patterns):
                size += len(name) + len(self.variables[name])
                if size > MAX_VARIABLES_BYTES:
                    break
                found[name] = self.variables[name]
        own = [each for each in self.settings if each.name.startswith(prefixes)]
        return Provision(own, found, self.generation)


def variable_form(name: str) -> str:
    """A name as it stands in a variable: in capitals, with `_` for all that is not a letter or digit."""
    return re.sub(r"[^A-Z0-9]", "_", name.upper())


def passed_on(environ: Mapping[str, str], hidden: Iterable[str]) -> dict[str, str]:
    """The environment as apps may be given it: without the node's own variables and the hidden ones."""
    kept = set(hidden)
    return {
        name: text
        for name, text in environ.items()
        if not name.startswith(OWN_PREFIX) and name not in kept
    }


def how_to_set(app: str, name: str) -> str:
    """Name what an operator writes to give a setting a value."""
    return (
        f"set `{name} = ...` in `[apps.{app}.settings]` of headrace.toml, "
        f"`{APP_PREFIX}{variable_form(app)}_{name}=...`, or `--set {app}.{name}=...`"
    )
