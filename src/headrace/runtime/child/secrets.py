"""Secrets in an instance: requested at first use, cached for a second, and removed from output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol, runtime_checkable

from headrace.model.errors import Misuse
from headrace.model.redaction import Redaction

FRESH_S: Final = 1.0
"""How long a value is used before it is requested again."""


@runtime_checkable
class SecretSource(Protocol):
    """A host that supplies secrets."""

    def secret(self, name: str, function: str) -> str:
        """Return the value of a secret for a function; "" is the app."""
        ...

    def blot(self, text: str) -> str:
        """Return the text without the values that were supplied."""
        ...


class NoSecrets:
    """A host without secrets."""

    def secret(self, name: str, function: str) -> str:
        """Refuse.

        Raises:
            Misuse: Always.
        """
        raise Misuse(f"there is no secret `{name}` here")

    def blot(self, text: str) -> str:
        """Return the text unchanged."""
        return text


def keys_of(host: object) -> SecretSource:
    """Return the host as a source of secrets, or an empty source."""
    return host if isinstance(host, SecretSource) else NoSecrets()


class InstanceSecrets:
    """Secrets that one instance has received.

    Args:
        ask: Requests a secret from the host.
        monotonic: Seconds that never go backwards.
    """

    def __init__(self, ask: Callable[[str], str], monotonic: Callable[[], float]) -> None:
        self._ask = ask
        self._monotonic = monotonic
        self._held: dict[str, tuple[float, str]] = {}
        self._blots = Redaction()
        self.blot = self._blots.blot

    def value(self, name: str) -> str:
        """Return the value, at most `FRESH_S` old."""
        held = self._held.get(name)
        now = self._monotonic()
        if held is not None and now - held[0] < FRESH_S:
            return held[1]
        # Not kept longer, so that a rotated secret is used within a second; not fetched at every
        # use, since each one costs a question to the host.
        found = self._ask(name)
        self._held[name] = now, found
        # Former values stay known: the author's code may still print one.
        self._blots.add(name, found)
        return found
