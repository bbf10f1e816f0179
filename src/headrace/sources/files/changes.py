"""What changed between two looks at a folder, and what stands still for long enough. Pure.

In: looks at a folder, with their time. Out: changes to be told, each once for a version; what is not
settled yet stays open. What was told is the caller's to keep.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from headrace.model.triggers.files import FileEvent
from headrace.sources.files.folder import FileVersion


class FileChange(NamedTuple):
    """A file that came, changed or went; `version` is None for one that went."""

    event: FileEvent
    name: str
    version: FileVersion | None


class Open(NamedTuple):
    """A change that is not told yet: since when the version stands still, and how long it must."""

    version: FileVersion | None
    since: float
    settle: float


class ToldVersions:
    """Knows which version of each file was told, and since when each new one stands still.

    Args:
        told: The versions that were told, by name.
        settle: Seconds a change must have stood still.
        unsure: Seconds at least where nothing says that the file is whole.
    """

    def __init__(self, told: Mapping[str, FileVersion], settle: float, unsure: float = 0.0) -> None:
        self.told = dict(told)
        self._settle = settle
        self._unsure = max(settle, unsure)
        self._open: dict[str, Open] = {}

    @property
    def open(self) -> Collection[str]:
        """The names whose changes are not told yet."""
        return self._open.keys()

    def look(
        self,
        seen: Mapping[str, FileVersion],
        now: float,
        busy: Collection[str] = (),
        closed: Collection[str] = (),
        whole: Collection[str] = (),
    ) -> list[FileChange]:
        """What is to be told of `seen` at `now` (seconds that only grow), by name.

        Args:
            seen: What was found.
            now: When.
            busy: Files that are being written: they do not stand still, whatever they look like.
            closed: Folders nobody could look into: what was told of them is neither seen nor gone.
            whole: Files that are known to be as their writers left them.
        """
        changes: list[FileChange] = []
        for name in sorted(seen.keys() | self.told.keys()):
            version, known = seen.get(name), self.told.get(name)
            hidden = version is None and is_beneath(name, closed)
            if version == known or hidden:
                self._open.pop(name, None)
                continue
            settle = self._settle if name in whole else self._unsure
            known_since = self._open.get(name)
            if known_since is None or known_since.version != version or name in busy:
                since = now
            else:
                since = known_since.since
            self._open[name] = Open(version, since, settle)
            if now - since >= settle and name not in busy:
                event: FileEvent = "created" if known is None else "modified"
                changes.append(FileChange("deleted" if version is None else event, name, version))
        for name in self._open.keys() - seen.keys() - self.told.keys():
            del self._open[name]
        return changes

    def tell(self, changes: Collection[FileChange]) -> None:
        """These were told."""
        for change in changes:
            self._open.pop(change.name, None)
            if change.version is None:
                self.told.pop(change.name, None)
            else:
                self.told[change.name] = change.version

    def settles_in(self, now: float) -> float | None:
        """Seconds until the next open change may stand still; None where nothing is open."""
        if not self._open:
            return None
        return max(min(each.since + each.settle for each in self._open.values()) - now, 0.0)


def is_beneath(name: str, folders: Collection[str]) -> bool:
    """Whether a file is in one of the folders."""
    return any(name.startswith(f"{folder}/") for folder in folders)
