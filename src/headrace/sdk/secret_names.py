"""The secrets an author names: names alone, checked where they are written."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.model.errors import Misuse
from headrace.model.webhook_signature import MAX_SECRETS_NAMED, Secret


def secret_names(given: Sequence[str | Secret], where: str) -> tuple[str, ...]:
    """The names, each once.

    Raises:
        Misuse: They are not a list, too many, or one may be the secret itself; that is not repeated.
    """
    if isinstance(given, (str, Secret)):
        raise Misuse(f'{where}: `secrets=` takes a list; write `secrets=["STRIPE"]`')
    names = tuple(
        dict.fromkeys((each if isinstance(each, Secret) else Secret(each)).name for each in given)
    )
    if len(names) > MAX_SECRETS_NAMED:
        raise Misuse(f"{where}: {len(names)} secrets are named; name at most {MAX_SECRETS_NAMED}")
    return names
