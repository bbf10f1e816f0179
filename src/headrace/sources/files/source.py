"""Source of files that come, change and go: one event for every version, whatever happens meanwhile.

The folder itself is the truth: it is compared with what was reported, and what differs and is stable
is reported, in one change with the note of it. The kernel's hints only say when to look. So a node
that was away reports at its return what has changed, and a crash loses and repeats nothing.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from headrace.environment.clock import Clock
from headrace.environment.failpoints import hit
from headrace.environment.wait_until import wait_until
from headrace.model.errors import Fenced, Unavailable
from headrace.model.event import Event
from headrace.model.triggers.files import Files, Objects, Sftp
from headrace.sources.base import SourceAppender
from headrace.sources.files.changes import FileChange, ReportedVersions, is_beneath
from headrace.sources.files.folder import FileVersion, Folder, WatchedFolder, version_of
from headrace.sources.files.inotify import Inotify, busy_and_whole
from headrace.sources.files.object_store import ObjectStore
from headrace.sources.files.sftp import SftpFolder
from headrace.sources.files.slices import Slice, header_of, read_slice, shown
from headrace.sources.foreign.feed import fitted

PAGE: Final = 500
"""Changes appended at once."""
# With inotify polling only covers what the kernel dropped; without it polling is all there is.
HINTED_POLL_S, BLIND_POLL_S = 60.0, 1.0
UNSURE_S: Final = 1.0
"""How long a file must be stable where nothing showed that its writer has closed it."""
PAUSE_S: Final = 0.005
"""Between two looks at least, so that a burst of changes costs few."""
# A folder of many files takes long to read: looking takes a fifth of the time at most.
PAUSE_SHARE: Final = 4.0
"""... and this many times what the last look took."""

SLICES: Final = 8
"""Slices appended at once."""

_version = msgspec.msgpack.Decoder(tuple[int, int, int | str])
_decode_partial = msgspec.msgpack.Decoder(tuple[int, int, int | str, int])
_pack = msgspec.msgpack.Encoder().encode


class PartialVersion(NamedTuple):
    """A version of a file that is appended in part: how many of its bytes."""

    version: FileVersion | None
    done: int

    @classmethod
    def of(cls, row: bytes) -> PartialVersion:
        """Decode a note."""
        size, modified, tag, done = _decode_partial.decode(row)
        return cls(FileVersion(size, modified, tag), done)


class FilesSource:
    """The source of one `Files`, `Objects` or `Sftp`."""

    def __init__(self, trigger: Files | Objects | Sftp, clock: Clock) -> None:
        self._trigger = trigger
        self._clock = clock
        self._folder: WatchedFolder
        if isinstance(trigger, Files):
            self._root = trigger.path
            self._settle = trigger.settle
            # Functions run in another folder: a path that is relative to the node's would be of no use.
            self._shown = str(Path(trigger.path).absolute())
            self._folder = Folder(trigger, clock)
        elif isinstance(trigger, Sftp):
            self._root = self._shown = trigger.url
            self._settle = trigger.settle
            self._folder = SftpFolder(trigger, clock)
        else:
            self._root = self._shown = trigger.url
            self._settle = 0.0
            self._folder = ObjectStore(trigger)
        self._place = f"{self._root}//"
        self._partial_place = f"{self._root}/:/"
        self._slices = trigger.slices if isinstance(trigger, Files) else None
        self._partial: dict[str, PartialVersion] = {}
        self._unsure = unsure_of(trigger)

    async def run(self, appender: SourceAppender) -> None:
        """Watch for ever.

        Raises:
            Unavailable: The folder cannot be read now.
            Misuse: It holds more than can be watched.
        """
        while True:
            hints = self._hints()
            try:
                await self._watch(appender, hints)
            except Fenced:
                # Another node has appended; continue from its checkpoint.
                continue
            finally:
                if hints is not None:
                    hints.close()
                await self._folder.close()

    def _hints(self) -> Inotify | None:
        if self._trigger.poll is not None:
            return None
        try:
            return Inotify(self._root)
        # No inotify (another system, a limit reached): files are found all the same, by polling.
        except Unavailable:
            return None

    async def _watch(self, appender: SourceAppender, hints: Inotify | None) -> None:
        row = await appender.checkpoint()
        turn = 0 if row is None else int.from_bytes(row)
        ledger = ReportedVersions(await self._reported(appender), self._settle, self._unsure)
        while True:
            hints, _ = self._follow(hints)
            # Before the look: a file that is closed after this is not known to be whole by it.
            before = {} if hints is None else hints.catch_up()
            began = self._clock.monotonic()
            seen = await self._folder.look()
            hints, is_new = self._follow(hints)
            if is_new:
                # What came into a new folder before it was watched would be overlooked.
                continue
            now = self._clock.monotonic()
            # A file that was opened or closed while we looked may have been seen half written.
            after = {} if hints is None else hints.catch_up()
            busy, whole = busy_and_whole(before, after)
            changes = ledger.look(seen, now, busy, self._folder.closed, whole)
            sliced = [change for change in changes if self._is_sliced(change)]
            for change in sliced:
                turn = await self._emit_slices(appender, ledger, change, turn)
            changes = [change for change in changes if not self._is_sliced(change)]
            turn = await self._forget_partial(appender, ledger, turn)
            # In pages: a folder with 100,000 new files must not become one change.
            for at in range(0, len(changes), PAGE):
                page = changes[at : at + PAGE]
                # The checkpoint must change with every append: it is what fences a second node.
                turn += 1
                await appender.emit(
                    [
                        self._event(change, turn, appender.stream)
                        for change in page
                        # Events that the author does not want are noted all the same, or they
                        # would be found at each look.
                        if change.event in self._trigger.events
                    ],
                    checkpoint=turn.to_bytes(8),
                    notes={
                        self._place + change.name: None
                        if change.version is None
                        else _pack(tuple(change.version))
                        for change in page
                    },
                )
                ledger.mark_reported(page)
            appender.works()
            if hints is not None:
                hints.forget(before, keep=ledger.open)
            pause = max(PAUSE_S, (now - began) * PAUSE_SHARE)
            await self._wait(hints, ledger, looked=now, pause=pause)

    def _is_sliced(self, change: FileChange) -> bool:
        is_meant = change.event in self._trigger.events
        return self._slices is not None and change.version is not None and is_meant

    async def _emit_slices(
        self, appender: SourceAppender, ledger: ReportedVersions, change: FileChange, turn: int
    ) -> int:
        """Append a version of a file slice by slice, with the position of each; return the next turn.

        Where the file is not that version any more, the next look reports the one that it is.
        """
        descriptor = self._folder.open(change.name) if isinstance(self._folder, Folder) else None
        if descriptor is None:
            return turn
        partial = self._partial.get(change.name)
        at = partial.done if partial is not None and partial.version == change.version else 0
        try:
            while (found := self._read(descriptor, change, at)) is not None:
                turn, at = turn + 1, found[-1].end
                is_last = change.version is not None and at == change.version.size
                notes: dict[str, bytes | None] = {self._partial_place + change.name: None}
                if is_last:
                    notes[self._place + change.name] = _pack(change.version)
                else:
                    # How far, in one change with the slices: a restart continues there.
                    notes[self._partial_place + change.name] = _pack((*(change.version or ()), at))
                header = self._header(descriptor, change)
                await appender.emit(
                    [
                        self._event(change, turn, appender.stream, part=part, header=header)
                        for part in found
                    ],
                    checkpoint=turn.to_bytes(8),
                    notes=notes,
                )
                hit("feed:after-append")
                if is_last:
                    ledger.mark_reported([change])
                    self._partial.pop(change.name, None)
                    return turn
                self._partial[change.name] = PartialVersion(change.version, at)
        finally:
            # Held over all slices: the name may be taken by another file meanwhile.
            os.close(descriptor)
        return turn

    async def _forget_partial(
        self, appender: SourceAppender, ledger: ReportedVersions, turn: int
    ) -> int:
        """Drop the notes of files that went before all of them was appended; return the next turn."""
        gone = {
            name
            for name in self._partial.keys() - ledger.open
            if not is_beneath(name, self._folder.closed)
        }
        if not gone:
            return turn
        notes = dict.fromkeys(self._partial_place + name for name in gone)
        await appender.emit((), checkpoint=(turn + 1).to_bytes(8), notes=notes)
        for name in gone:
            del self._partial[name]
        return turn + 1

    def _read(self, descriptor: int, change: FileChange, at: int) -> list[Slice] | None:
        """The next slices of the version; None where the file is not it any more."""
        version, by = change.version, self._slices
        # Checked before and after reading: a slice must be of one version (ADR 0028).
        if version is None or by is None or version_of(os.fstat(descriptor)) != version:
            return None
        found = [read_slice(descriptor, at, version.size, by)]
        while len(found) < SLICES and found[-1].end < version.size:
            found.append(read_slice(descriptor, found[-1].end, version.size, by))
        # Whatever was read before it changed again is of this version.
        return found if version_of(os.fstat(descriptor)) == version else None

    def _header(self, descriptor: int, change: FileChange) -> str | None:
        if self._slices != "csv" or change.version is None:
            return None
        return header_of(descriptor, change.version.size)

    def _follow(self, hints: Inotify | None) -> tuple[Inotify | None, bool]:
        """Have the kernel watch the folders that were found; True where there are new ones.

        Where others use up what the machine allows, we look by ourselves as where there is none.
        """
        if hints is None:
            return None, False
        try:
            return hints, hints.watch(self._folder.folders)
        except Unavailable:
            hints.close()
            return None, False

    async def _reported(self, appender: SourceAppender) -> dict[str, FileVersion]:
        """The versions reported of this folder, without files that the trigger no longer means."""
        notes = await appender.notes()
        self._partial = {
            name.removeprefix(self._partial_place): PartialVersion.of(row)
            for name, row in notes.items()
            if name.startswith(self._partial_place)
        }
        return {
            name.removeprefix(self._place): FileVersion(*_version.decode(row))
            for name, row in notes.items()
            if name.startswith(self._place)
            # A narrowed `glob` must not report the others as deleted.
            and self._folder.includes(name.removeprefix(self._place))
        }

    async def _wait(
        self, hints: Inotify | None, ledger: ReportedVersions, *, looked: float, pause: float
    ) -> None:
        settling = ledger.settles_in(self._clock.monotonic())
        longest = HINTED_POLL_S if hints is not None else self._trigger.poll or BLIND_POLL_S
        if settling is not None:
            longest = max(min(longest, settling), pause)
        if hints is not None:
            try:
                await self._clock.timeout(hints.wait(), longest)
            except TimeoutError:
                return
            # The first change after a quiet time is looked at at once.
            if (rest := looked + pause - self._clock.monotonic()) > 0:
                await self._clock.sleep(rest)
        elif settling is not None:
            await self._clock.sleep(longest)
        else:
            await wait_until(self._clock, self._clock.now() + round(longest * 1_000_000))

    def _event(
        self,
        change: FileChange,
        turn: int,
        stream: str,
        *,
        part: Slice | None = None,
        header: str | None = None,
    ) -> Event:
        size, modified, tag = change.version or (None, None, None)
        raw = change.name.encode(errors="surrogateescape")
        name = raw.decode(errors="replace")
        value = {
            "event": change.event,
            "name": name,
            "path": f"{self._shown.rstrip('/')}/{name}",
            "size": size,
            "modified": None if modified is None else modified / 1_000_000_000,
            "tag": tag,
        }
        place = ""
        if part is not None and self._slices is not None:
            value |= shown(part, self._slices) | {"header": header, "last": part.end == size}
            place = f"@{part.begin}"
        event = Event(
            msgspec.json.encode(value),
            key=name,
            time=self._clock.now() if modified is None else max(modified // 1_000, 0),
            # Names that are not UTF-8 may look alike; an id is looked up and must not.
            id=f"{stream}@{turn}{place}@{_unique_text(raw)}",
            type=f"headrace.file.{change.event}",
            source=stream,
        )
        return event if part is None else fitted(event)


def _unique_text(name: bytes) -> str:
    """A name as unique text: an escaped byte cannot look like a written one."""
    return name.replace(b"\\", b"\\\\").decode(errors="backslashreplace")


def unsure_of(trigger: Files | Objects | Sftp) -> float:
    """Seconds for which a version must be stable where nothing shows that it is whole: two looks at least."""
    if isinstance(trigger, Objects) and not trigger.url.startswith("file:"):
        # An object is there whole or not at all.
        return 0.0
    return UNSURE_S if trigger.poll is None else min(trigger.poll, UNSURE_S)
