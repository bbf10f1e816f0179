"""Randomness: the kernel's in production, a seeded generator in tests and simulation."""

from __future__ import annotations

import random
import secrets
from typing import Protocol


class Entropy(Protocol):
    """The only source of randomness; passed to every object that needs it."""

    def uniform(self, low: float, high: float) -> float:
        """Draw a number from `[low, high]`, uniformly."""
        ...

    def integer(self, bits: int, /) -> int:
        """Draw a number from `[0, 2**bits)`, uniformly."""
        ...

    def token(self, size: int = 16) -> str:
        """Draw `2 * size` hexadecimal digits."""
        ...


class SystemEntropy:
    """The kernel's randomness."""

    def __init__(self) -> None:
        # A generator in the process: a system call for each draw would cost more than the draw.
        self._random = random.Random(secrets.randbits(128))
        # Called several times per event, so without a method in between; not for secrets.
        self.integer = self._random.getrandbits

    def uniform(self, low: float, high: float) -> float:
        """Draw from a generator that was seeded by the kernel; not for secrets."""
        return self._random.uniform(low, high)

    def token(self, size: int = 16) -> str:
        """Draw from the kernel; suitable for secrets."""
        return secrets.token_hex(size)


class SeededEntropy:
    """The same draws for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def uniform(self, low: float, high: float) -> float:
        """Draw from the seeded generator."""
        return self._random.uniform(low, high)

    def integer(self, bits: int) -> int:
        """Draw from the seeded generator."""
        return self._random.getrandbits(bits)

    def token(self, size: int = 16) -> str:
        """Draw from the seeded generator; never for secrets."""
        return self._random.getrandbits(size * 8).to_bytes(size, "big").hex()
