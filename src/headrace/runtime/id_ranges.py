"""Range of user ids for the instances of a node that runs as root; no other node of the machine has it.

A range is held by a lock on a file below `/run`. The kernel releases the lock when the node's
process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import logging
import os
from pathlib import Path
from typing import Final

from headrace.environment.randomness import Entropy
from headrace.model.errors import Unavailable
from headrace.runtime.sandbox.warden import IDS_PER_ZYGOTE

_log = logging.getLogger("headrace.runtime")
FIRST_UID: Final = 1 << 20
MAX_BLOCKS: Final = 1 << 10
"""The number of zygotes after which a block of ids is used again."""
RANGE: Final = MAX_BLOCKS * IDS_PER_ZYGOTE
MAX_NODES: Final = 32
"""The maximum number of nodes of a machine that run as root."""
INSTANCE_UIDS: Final = range(FIRST_UID, FIRST_UID + MAX_NODES * RANGE)
"""All ids of zygotes and instances, of all nodes that run as root on a machine."""
FOLDER: Final = Path("/run/headrace")


class IdRange:
    """A range of ids that this process holds until `give_back` or its end."""

    def __init__(self, entropy: Entropy, folder: Path = FOLDER) -> None:
        """Take a free range; a random one if the folder cannot be written.

        Raises:
            Unavailable: All ranges are taken.
        """
        # Random, so that nodes without a writable folder rarely share a range.
        number = entropy.integer(16) % MAX_NODES
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            number, self._lock = _locked(folder, number)
        except OSError as error:
            self._lock = -1
            _log.warning(
                "the user ids of instances may be those of another node of this machine: `%s` cannot "
                "be written (%s)",
                folder,
                error.strerror,
            )
        self.first = FIRST_UID + number * RANGE

    def block(self, number: int) -> int:
        """Return the first id of a zygote."""
        return self.first + number % MAX_BLOCKS * IDS_PER_ZYGOTE

    def give_back(self) -> None:
        """Release the range, once no process runs under its ids."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _locked(folder: Path, start: int) -> tuple[int, int]:
    """Return the number of a free range, and the descriptor that holds its lock."""
    for step in range(MAX_NODES):
        number = (start + step) % MAX_NODES
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        lock = os.open(folder / f"ids-{number}.lock", flags, 0o600)
        try:
            # `flock` belongs to the descriptor, while a POSIX lock would be dropped by any close
            # of the file in this process.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        return number, lock
    raise Unavailable(
        f"{MAX_NODES} nodes run as root on this machine, which is the most whose instances have user ids of "
        "their own; stop one, or run this one as another user"
    )
