"""Chance comes in here: a seeded generator in tests and simulation, the kernel's in production."""

from __future__ import annotations

import random
import secrets
from typing import Protocol


class Entropy(Protocol):
    """The only source of chance; passed to every object that needs it."""

    def uniform(self, low: float, high: float) -> float:
        """A number drawn evenly from `[low, high]`."""
        ...

    def integer(self, bits: int, /) -> int:
        """A number drawn evenly from `[0, 2**bits)`."""
        ...

    def token(self, size: int = 16) -> str:
        """`2 * size` hexadecimal digits."""
        ...


class SystemEntropy:
    """The kernel's randomness."""

    def __init__(self) -> None:
        self._random = random.Random(secrets.randbits(128))
        # Drawn several times an event, so without a call in between; not for secrets.
        self.integer = self._random.getrandbits

    def uniform(self, low: float, high: float) -> float:
        """Drawn from a generator seeded by the kernel; not for secrets."""
        return self._random.uniform(low, high)

    def token(self, size: int = 16) -> str:
        """Straight from the kernel; fit for secrets."""
        return secrets.token_hex(size)


class SeededEntropy:
    """The same draws for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def uniform(self, low: float, high: float) -> float:
        """As drawn by the seed."""
        return self._random.uniform(low, high)

    def integer(self, bits: int) -> int:
        """As drawn by the seed."""
        return self._random.getrandbits(bits)

    def token(self, size: int = 16) -> str:
        """As drawn by the seed; never for secrets."""
        return self._random.getrandbits(size * 8).to_bytes(size, "big").hex()
