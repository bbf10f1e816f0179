"""Secrets on the instance's side: asked for at first use, kept for a moment, known so that they are removed from output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol, runtime_checkable

from headrace.model.errors import Misuse
from headrace.model.redaction import Redaction

FRESH_S: Final = 1.0
"""How long a value is used before it is asked for again."""


@runtime_checkable
class SecretSource(Protocol):
    """A host that hands secrets out."""

    def secret(self, name: str, function: str) -> str:
        """The value of a secret; `function` asks for it, or "" the app."""
        ...

    def blot(self, text: str) -> str:
        """The text without the values that were handed out."""
        ...


class NoSecrets:
    """A host that has none."""

    def secret(self, name: str, function: str) -> str:
        """Refuse.

        Raises:
            Misuse: Always.
        """
        raise Misuse(f"there is no secret `{name}` here")

    def blot(self, text: str) -> str:
        """The text as it is."""
        return text


def keys_of(host: object) -> SecretSource:
    """The host's keyring, or an empty one."""
    return host if isinstance(host, SecretSource) else NoSecrets()


class InstanceSecrets:
    """Secrets that one instance has received.

    Args:
        ask: Asks the host for a secret.
        monotonic: Seconds that never go backwards.
    """

    def __init__(self, ask: Callable[[str], str], monotonic: Callable[[], float]) -> None:
        self._ask = ask
        self._monotonic = monotonic
        self._held: dict[str, tuple[float, str]] = {}
        self._blots = Redaction()
        self.blot = self._blots.blot

    def value(self, name: str) -> str:
        """The value, as old as `FRESH_S` at most."""
        held = self._held.get(name)
        now = self._monotonic()
        if held is not None and now - held[0] < FRESH_S:
            return held[1]
        found = self._ask(name)
        self._held[name] = now, found
        self._blots.add(name, found)
        return found
