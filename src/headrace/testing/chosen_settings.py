"""Settings as a test chooses them: which of the apps' settings are meant, and as what.

In: apps, and values by name. Out: the settings hold these values until the block is left. Refuses a
name that no app declares, a value of another type, and a setting that is left without a value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from headrace.model.errors import Misuse
from headrace.model.near_names import near
from headrace.model.settings import SettingValue
from headrace.sdk.app import App
from headrace.sdk.settings import Setting
from headrace.topology.missing_settings import needed_secrets


@contextmanager
def chosen(apps: Sequence[App], values: Mapping[str, Any]) -> Iterator[None]:
    """Let settings have these values; a name is `RATE`, or `shop.RATE` where several apps have one.

    Raises:
        Misuse: A name is unknown, a value is not of its setting's type, or a setting has none.
    """
    declared = [setting for app in apps for setting in app.settings.values()]
    with ExitStack() as held:
        for name, value in values.items():
            for setting in _meant(declared, name):
                where = f"`World(settings={{{name!r}: ...}})`"
                held.enter_context(setting.override(setting.read(SettingValue(name, value, where))))
        for setting in declared:
            if not setting.has_value:
                raise Misuse(
                    f"the setting `{setting.name}` has no value; write "
                    f"`World(..., settings={{{setting.spec.name!r}: ...}})`, or give it a `default=`"
                )
        yield


def check_secrets(apps: Sequence[App], values: Mapping[str, str]) -> None:
    """Pass, where every secret that the apps use has a value, as a node asks for, and no other has.

    Raises:
        Misuse: A name is unknown, or some secrets have no value; all of those are named.
    """
    needed = needed_secrets([app.spec() for app in apps])
    for name in values:
        if name not in needed:
            raise Misuse(f"no app here declares a secret `{name}`{near(name, needed)}")
    missing = [name for name in needed if not values.get(name)]
    if missing:
        missing_names = "; ".join(
            f"`{name}` for {', '.join(f'`{user}`' for user in needed[name])}" for name in missing
        )
        given = ", ".join(f"{name!r}: ..." for name in needed)
        raise Misuse(
            f"secrets have no value: {missing_names}; write `World(..., secrets={{{given}}})`"
        )


def _meant(declared: Sequence[Setting[Any]], name: str) -> list[Setting[Any]]:
    found = [each for each in declared if name in (each.name, each.spec.name)]
    if not found:
        names = [each.spec.name for each in declared]
        raise Misuse(f"no app here declares a setting `{name}`{near(name, names)}")
    return found
