"""Addresses that cannot be guessed: a text with a signature by a key that never leaves the node's store."""

from __future__ import annotations

import hmac

from headrace.environment.randomness import Entropy
from headrace.model.effects import Change, Check, Put, Space
from headrace.model.errors import Conflict
from headrace.storage.kv.base import Storage
from headrace.storage.kv.keys import pack

_KEY = pack("marks", "key")
DIGITS = 32


class AddressSigner:
    """Signs texts, and verifies its signatures. Owned by assembly."""

    def __init__(self, storage: Storage, entropy: Entropy) -> None:
        self._storage = storage
        self._entropy = entropy
        self._key: bytes | None = None

    async def mark(self, text: str) -> str:
        """Return the text's signature, 32 hexadecimal digits."""
        key = self._key or await self._load()
        return hmac.digest(key, text.encode(), "sha256").hex()[:DIGITS]

    async def is_ours(self, text: str, mark: str) -> bool:
        """Return whether `mark` is the text's signature."""
        return hmac.compare_digest((await self.mark(text)).encode(), mark.encode())

    async def _load(self) -> bytes:
        """Load the key; the first node that needs it creates it."""
        while (row := await self._storage.get(Space.META, _KEY)) is None:
            made = bytes.fromhex(self._entropy.token(32))
            try:
                await self._storage.apply(
                    Change((Check(Space.META, _KEY, None),), (Put(Space.META, _KEY, made),))
                )
            # Another node was faster: both must use the same key, so read it.
            except Conflict:
                continue
        self._key = row
        return row
