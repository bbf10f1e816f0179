"""Proof that a client is the operator of a node: the key of the running node.

A browser enters by a link that is valid once, and is then recognised by a cookie: for reading, not
for changes. The key is created at each start and stored in the data folder, readable by the node's
user and root only; commands on the node's machine read it there. It is valid for every path of the
platform and for no author's route, so that no function receives it.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections import deque
from pathlib import Path

from headrace.client.address import KEY_FILE
from headrace.environment.randomness import Entropy

COOKIE = "headrace_session"
MAX_LINKS = 16
MAX_SESSIONS = 64
_PREFIX = "hro_"


class Operator:
    """Proofs of the operator of one running node. Owned by assembly.

    Attributes:
        key: The key, as a bearer token.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        # Bounded without an expiry: older links and sessions are dropped first, and all of them at
        # a restart.
        self._codes: deque[str] = deque(maxlen=MAX_LINKS)
        self._sessions: deque[str] = deque(maxlen=MAX_SESSIONS)

    def link(self, entropy: Entropy) -> str:
        """Create a code that admits one browser, once; only the latest unused codes are valid."""
        code = entropy.token(32)
        self._codes.append(_hash(code))
        return code

    def enter(self, code: str, entropy: Entropy) -> str | None:
        """Exchange a code for a session, which invalidates the code; return None for an unknown code."""
        try:
            self._codes.remove(_hash(code))
        except ValueError:
            return None
        session = entropy.token(32)
        self._sessions.append(_hash(session))
        return session

    def knows(self, cookies: str | None) -> bool:
        """Return whether a `Cookie` header brings a session of this node."""
        for cookie in (cookies or "").split(";"):
            name, _, text = cookie.strip().partition("=")
            if name == COOKIE and _hash(text) in self._sessions:
                return True
        return False

    def shows(self, authorization: str | None) -> bool:
        """Return whether an `Authorization` header brings the key; compared in constant time."""
        kind, _, text = (authorization or "").partition(" ")
        return kind.lower() == "bearer" and hmac.compare_digest(
            text.strip().encode("utf-8", "replace"), self.key.encode()
        )


def _hash(text: str) -> str:
    # Compared by hash, as the time of comparing the texts would reveal how much of a guess is
    # right.
    return hashlib.sha256(text.encode()).hexdigest()


def fresh_key(entropy: Entropy) -> str:
    """Return a new key of 256 random bits."""
    return _PREFIX + entropy.token(32)


def write_key(data: Path, key: str) -> Path:
    """Write the key into the data folder, readable by its owner only; replace an earlier one.

    Raises:
        OSError: The folder cannot be written.
    """
    place, whole = data / KEY_FILE, data / f"{KEY_FILE}.new"
    whole.unlink(missing_ok=True)
    # The mode from the start, not by a later `chmod`; O_EXCL and O_NOFOLLOW, so that a link cannot
    # redirect the key.
    descriptor = os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(key)
    # A rename is atomic: a command never reads half a key.
    return whole.replace(place)
