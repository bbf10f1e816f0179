"""The operator of a node, and how a client proves to be him: by the key of the running node.

A browser is let in by a link that is good once, and known again by a cookie: to look, not to act. The
key is made at each start and lies in the data folder, readable by the node's user and root
only; commands on the node's machine find it there. It is good for every path of the platform and for
none of the authors' routes, so that no function is ever handed it.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections import deque
from pathlib import Path

from headrace.environment.randomness import Entropy

FILE_NAME = "operator.key"
COOKIE = "headrace_session"
MAX_LINKS = 16
MAX_SESSIONS = 64
_PREFIX = "hro_"


class Operator:
    """Proof that the operator of one running node can show. Owned by assembly.

    Attributes:
        key: The key, as a bearer token.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self._codes: deque[str] = deque(maxlen=MAX_LINKS)
        self._sessions: deque[str] = deque(maxlen=MAX_SESSIONS)

    def link(self, entropy: Entropy) -> str:
        """A code that lets one browser in, once; of many unused ones the latest count."""
        code = entropy.token(32)
        self._codes.append(_hash(code))
        return code

    def enter(self, code: str, entropy: Entropy) -> str | None:
        """The session of a browser that brings a code, which is good no more; None for any other."""
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
    # Compared by their hashes, so that time reveals nothing of the text.
    return hashlib.sha256(text.encode()).hexdigest()


def fresh_key(entropy: Entropy) -> str:
    """A key that cannot be guessed."""
    return _PREFIX + entropy.token(32)


def write_key(data: Path, key: str) -> Path:
    """Write the key into the data folder, for its owner alone; another node's key there is replaced.

    Raises:
        OSError: The folder cannot be written.
    """
    place, whole = data / FILE_NAME, data / f"{FILE_NAME}.new"
    whole.unlink(missing_ok=True)
    descriptor = os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(key)
    return whole.replace(place)


def read_key(data: Path) -> str:
    """The key of the node that owns the data folder; "" where there is none that we may read."""
    try:
        return (data / FILE_NAME).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
