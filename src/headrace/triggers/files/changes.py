"""What changed between two looks at a folder, and what stands still for long enough. Pure.

In: looks at a folder, with their time. Out: changes to be told, each once for a version; what is not
settled yet stays open. What was told is the caller's to keep.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from headrace.model.watches import FileEvent
from headrace.triggers.files.folder import Version


class FileChange(NamedTuple):
    """A file that came, changed or went; `version` is None for one that went."""

    event: FileEvent
    name: str
    version: Version | None


class Ledger:
    """Knows which version of each file was told, and since when each new one stands still."""

    def __init__(self, told: Mapping[str, Version], settle: float) -> None:
        self.told = dict(told)
        self._settle = settle
        self._since: dict[str, tuple[Version | None, float]] = {}

    def look(
        self,
        seen: Mapping[str, Version],
        now: float,
        busy: Collection[str] = (),
        closed: Collection[str] = (),
    ) -> list[FileChange]:
        """What is to be told of `seen` at `now` (seconds that only grow), by name.

        Args:
            seen: What was found.
            now: When.
            busy: Files that are being written: they do not stand still, whatever they look like.
            closed: Folders nobody could look into: what was told of them is neither seen nor gone.
        """
        changes: list[FileChange] = []
        for name in sorted(seen.keys() | self.told.keys()):
            version, known = seen.get(name), self.told.get(name)
            hidden = version is None and _is_beneath(name, closed)
            if version == known or hidden:
                self._since.pop(name, None)
                continue
            since = self._since.get(name)
            if since is None or since[0] != version or name in busy:
                since = self._since[name] = version, now
            if now - since[1] >= self._settle and name not in busy:
                event: FileEvent = "created" if known is None else "modified"
                changes.append(FileChange("deleted" if version is None else event, name, version))
        for name in self._since.keys() - seen.keys() - self.told.keys():
            del self._since[name]
        return changes

    def tell(self, changes: Collection[FileChange]) -> None:
        """These were told."""
        for change in changes:
            self._since.pop(change.name, None)
            if change.version is None:
                self.told.pop(change.name, None)
            else:
                self.told[change.name] = change.version

    def settles_in(self, now: float) -> float | None:
        """Seconds until the next open change may stand still; None where nothing is open."""
        if not self._since:
            return None
        return max(min(since for _, since in self._since.values()) + self._settle - now, 0.0)


def _is_beneath(name: str, folders: Collection[str]) -> bool:
    return any(name.startswith(f"{folder}/") for folder in folders)
