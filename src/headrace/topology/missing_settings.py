"""Settings and secrets that apps need from their operator, and which are missing. Pure.

In: `AppSpec`s. Out: the settings without a value, in sentences, and the secrets that apps use.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from headrace.model.function import AppSpec
from headrace.model.settings import how_to_set
from headrace.model.triggers.http import Webhook


def missing_settings(apps: Iterable[AppSpec]) -> Iterator[str]:
    """A sentence for each setting without a value, naming it and what to write."""
    for app in apps:
        for setting in app.settings:
            if setting.is_missing:
                yield (
                    f"app `{app.name}` needs the setting `{setting.name}` ({setting.type}), which has no "
                    f"value; {how_to_set(app.name, setting.name)}"
                )


def needed_secrets(apps: Iterable[AppSpec]) -> dict[str, list[str]]:
    """The names of the secrets that apps use, each with who uses it: functions, webhooks, forwards."""
    found: dict[str, list[str]] = {}
    for app in apps:
        for name, user in _uses(app):
            users = found.setdefault(name, [])
            if user not in users:
                users.append(user)
    return found


def _uses(app: AppSpec) -> Iterator[tuple[str, str]]:
    yield from ((name, app.name) for name in app.secrets)
    for function in app.functions:
        own = (name for name in function.secrets if name not in app.secrets)
        yield from ((name, function.name) for name in own)
        for trigger in function.triggers:
            if isinstance(trigger, Webhook):
                yield from ((secret.name, function.name) for secret in trigger.signature.secrets)
    for forward in app.forwards:
        if forward.http is not None:
            yield from ((secret.name, forward.name) for secret in forward.http.secrets)
