"""What apps need from their operator before they can run, and what of it is missing. Pure.

In: `AppSpec`s. Out: the settings without a value, in sentences.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from headrace.model.function import AppSpec
from headrace.model.settings import how_to_set


def missing_settings(apps: Iterable[AppSpec]) -> Iterator[str]:
    """A sentence for each setting that nobody gave a value, naming it and what to write."""
    for app in apps:
        for setting in app.settings:
            if setting.is_missing:
                yield (
                    f"app `{app.name}` needs the setting `{setting.name}` ({setting.type}), which has no "
                    f"value; {how_to_set(app.name, setting.name)}"
                )
