"""Changes between two looks at a folder that have been stable for long enough. Pure.

In: looks at a folder, with their time. Out: changes to report, each once for a version; what is not
settled yet stays open. The caller stores what was reported.
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
    """A change that is not reported yet: since when the version is stable, and how long it must be."""

    version: FileVersion | None
    since: float
    settle: float


class ReportedVersions:
    """Knows which version of each file was reported, and since when each new one is stable.

    Args:
        reported: The versions that were reported, by name.
        settle: Seconds for which a change must be stable.
        unsure: Seconds at least where nothing says that the file is whole.
    """

    def __init__(
        self, reported: Mapping[str, FileVersion], settle: float, unsure: float = 0.0
    ) -> None:
        self.reported = dict(reported)
        self._settle = settle
        self._unsure = max(settle, unsure)
        self._open: dict[str, Open] = {}

    @property
    def open(self) -> Collection[str]:
        """The names whose changes are not reported yet."""
        return self._open.keys()

    def look(
        self,
        seen: Mapping[str, FileVersion],
        now: float,
        busy: Collection[str] = (),
        closed: Collection[str] = (),
        whole: Collection[str] = (),
    ) -> list[FileChange]:
        """The changes to report of `seen` at `now` (seconds that only grow), by name.

        Args:
            seen: What was found.
            now: When.
            busy: Files that are being written: they are not stable, whatever they look like.
            closed: Folders that could not be read: what was reported of them is neither seen nor gone.
            whole: Files that are known to be as their writers left them.
        """
        changes: list[FileChange] = []
        for name in sorted(seen.keys() | self.reported.keys()):
            version, known = seen.get(name), self.reported.get(name)
            # A folder that cannot be read for a while must not make its files appear deleted.
            hidden = version is None and is_beneath(name, closed)
            if version == known or hidden:
                self._open.pop(name, None)
                continue
            # Without the kernel's word that its writer has closed it, a file that did not grow may
            # still be open.
            settle = self._settle if name in whole else self._unsure
            known_since = self._open.get(name)
            # A file under a writer is never stable: its clock starts again at each look.
            if known_since is None or known_since.version != version or name in busy:
                since = now
            else:
                since = known_since.since
            self._open[name] = Open(version, since, settle)
            if now - since >= settle and name not in busy:
                event: FileEvent = "created" if known is None else "modified"
                changes.append(FileChange("deleted" if version is None else event, name, version))
        # A file that came and went before it was reported leaves no event.
        for name in self._open.keys() - seen.keys() - self.reported.keys():
            del self._open[name]
        return changes

    def mark_reported(self, changes: Collection[FileChange]) -> None:
        """Remember that these were reported."""
        for change in changes:
            self._open.pop(change.name, None)
            if change.version is None:
                self.reported.pop(change.name, None)
            else:
                self.reported[change.name] = change.version

    def settles_in(self, now: float) -> float | None:
        """Seconds until the next open change may be stable; None where nothing is open."""
        if not self._open:
            return None
        return max(min(each.since + each.settle for each in self._open.values()) - now, 0.0)


def is_beneath(name: str, folders: Collection[str]) -> bool:
    """Return True where a file is in one of the folders."""
    return any(name.startswith(f"{folder}/") for folder in folders)
