"""Tells of files that come, change and go: once for every version, whatever happens meanwhile.

The folder itself is the truth: it is compared with what was told, and what differs and stands still
is told, in one change with the memory of it. The kernel's hints only say when to look. So a node
that was away tells at its return what has changed, and a crash loses and repeats nothing.
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
from headrace.sources.files.changes import FileChange, ToldVersions, is_beneath
from headrace.sources.files.folder import FileVersion, Folder, WatchedFolder, version_of
from headrace.sources.files.inotify import Inotify, busy_and_whole
from headrace.sources.files.object_store import ObjectStore
from headrace.sources.files.sftp import SftpFolder
from headrace.sources.files.slices import Slice, header_of, read_slice, shown
from headrace.sources.foreign.feed import fitted

PAGE: Final = 500
"""Changes told at once."""
HINTED_POLL_S, BLIND_POLL_S = 60.0, 1.0
UNSURE_S: Final = 1.0
"""How long a file stands still at least where nothing said that its writer has closed it."""
PAUSE_S: Final = 0.005
"""Between two looks at least, so that a burst of changes costs few."""
PAUSE_SHARE: Final = 4.0
"""... and this many times what the last look took."""

SLICES: Final = 8
"""Slices told at once."""

_version = msgspec.msgpack.Decoder(tuple[int, int, int | str])
_begun = msgspec.msgpack.Decoder(tuple[int, int, int | str, int])
_pack = msgspec.msgpack.Encoder().encode


class PartialVersion(NamedTuple):
    """A version of a file that is told in part: how many of its bytes."""

    version: FileVersion | None
    done: int

    @classmethod
    def of(cls, row: bytes) -> PartialVersion:
        """What was noted."""
        size, modified, tag, done = _begun.decode(row)
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
            # Functions stand elsewhere: a path that is relative to the node would be of no use.
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
        self._begun_place = f"{self._root}/:/"
        self._slices = trigger.slices if isinstance(trigger, Files) else None
        self._begun: dict[str, PartialVersion] = {}
        self._unsure = unsure_of(trigger)

    async def run(self, outlet: SourceAppender) -> None:
        """Watch for ever.

        Raises:
            Unavailable: The folder cannot be read now.
            Misuse: It holds more than can be watched.
        """
        while True:
            hints = self._hints()
            try:
                await self._watch(outlet, hints)
            except Fenced:
                # Another node has told; go on from what it remembered.
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
        except Unavailable:
            return None

    async def _watch(self, outlet: SourceAppender, hints: Inotify | None) -> None:
        row = await outlet.checkpoint()
        turn = 0 if row is None else int.from_bytes(row)
        ledger = ToldVersions(await self._told(outlet), self._settle, self._unsure)
        while True:
            hints, _ = self._follow(hints)
            before = {} if hints is None else hints.catch_up()
            began = self._clock.monotonic()
            seen = await self._folder.look()
            hints, is_new = self._follow(hints)
            if is_new:
                # What came into a new folder before it was watched would be overlooked.
                continue
            now = self._clock.monotonic()
            # What was begun or ended while we looked may have been seen half written.
            after = {} if hints is None else hints.catch_up()
            busy, whole = busy_and_whole(before, after)
            changes = ledger.look(seen, now, busy, self._folder.closed, whole)
            sliced = [change for change in changes if self._is_sliced(change)]
            for change in sliced:
                turn = await self._tell_slices(outlet, ledger, change, turn)
            changes = [change for change in changes if not self._is_sliced(change)]
            turn = await self._forget_begun(outlet, ledger, turn)
            for at in range(0, len(changes), PAGE):
                page = changes[at : at + PAGE]
                turn += 1
                await outlet.emit(
                    [
                        self._event(change, turn, outlet.stream)
                        for change in page
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
                ledger.tell(page)
            outlet.works()
            if hints is not None:
                hints.forget(before, keep=ledger.open)
            pause = max(PAUSE_S, (now - began) * PAUSE_SHARE)
            await self._wait(hints, ledger, looked=now, pause=pause)

    def _is_sliced(self, change: FileChange) -> bool:
        is_meant = change.event in self._trigger.events
        return self._slices is not None and change.version is not None and is_meant

    async def _tell_slices(
        self, outlet: SourceAppender, ledger: ToldVersions, change: FileChange, turn: int
    ) -> int:
        """Tell of a version of a file slice by slice, and how far with each; the turn after it.

        Where the file is not that version any more, the next look tells of the one that it is.
        """
        descriptor = self._folder.open(change.name) if isinstance(self._folder, Folder) else None
        if descriptor is None:
            return turn
        begun = self._begun.get(change.name)
        at = begun.done if begun is not None and begun.version == change.version else 0
        try:
            while (found := self._read(descriptor, change, at)) is not None:
                turn, at = turn + 1, found[-1].end
                is_last = change.version is not None and at == change.version.size
                notes: dict[str, bytes | None] = {self._begun_place + change.name: None}
                if is_last:
                    notes[self._place + change.name] = _pack(change.version)
                else:
                    notes[self._begun_place + change.name] = _pack((*(change.version or ()), at))
                header = self._header(descriptor, change)
                await outlet.emit(
                    [
                        self._event(change, turn, outlet.stream, part=part, header=header)
                        for part in found
                    ],
                    checkpoint=turn.to_bytes(8),
                    notes=notes,
                )
                hit("feed:after-append")
                if is_last:
                    ledger.tell([change])
                    self._begun.pop(change.name, None)
                    return turn
                self._begun[change.name] = PartialVersion(change.version, at)
        finally:
            os.close(descriptor)
        return turn

    async def _forget_begun(self, outlet: SourceAppender, ledger: ToldVersions, turn: int) -> int:
        """Drop what was noted of files that went before all of them was told; the turn after it."""
        gone = {
            name
            for name in self._begun.keys() - ledger.open
            if not is_beneath(name, self._folder.closed)
        }
        if not gone:
            return turn
        notes = dict.fromkeys(self._begun_place + name for name in gone)
        await outlet.emit((), checkpoint=(turn + 1).to_bytes(8), notes=notes)
        for name in gone:
            del self._begun[name]
        return turn + 1

    def _read(self, descriptor: int, change: FileChange, at: int) -> list[Slice] | None:
        """The next slices of the version; None where the file is not it any more."""
        version, by = change.version, self._slices
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
        """Have the kernel watch the folders that were found; whether there are new ones.

        Where others use up what the machine allows, we look by ourselves as where there is none.
        """
        if hints is None:
            return None, False
        try:
            return hints, hints.watch(self._folder.folders)
        except Unavailable:
            hints.close()
            return None, False

    async def _told(self, outlet: SourceAppender) -> dict[str, FileVersion]:
        """What was told of this folder; what the trigger no longer means counts as never told."""
        notes = await outlet.notes()
        self._begun = {
            name.removeprefix(self._begun_place): PartialVersion.of(row)
            for name, row in notes.items()
            if name.startswith(self._begun_place)
        }
        return {
            name.removeprefix(self._place): FileVersion(*_version.decode(row))
            for name, row in notes.items()
            if name.startswith(self._place)
            and self._folder.includes(name.removeprefix(self._place))
        }

    async def _wait(
        self, hints: Inotify | None, ledger: ToldVersions, *, looked: float, pause: float
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
            id=f"{stream}@{turn}{place}@{_told_apart(raw)}",
            type=f"headrace.file.{change.event}",
            source=stream,
        )
        return event if part is None else fitted(event)


def _told_apart(name: bytes) -> str:
    """A name as text of which there is no other: an escaped byte looks like no written one."""
    return name.replace(b"\\", b"\\\\").decode(errors="backslashreplace")


def unsure_of(trigger: Files | Objects | Sftp) -> float:
    """Seconds a version must stand still where nothing says that it is whole: two looks at least."""
    if isinstance(trigger, Objects) and not trigger.url.startswith("file:"):
        # An object is there whole or not at all.
        return 0.0
    return UNSURE_S if trigger.poll is None else min(trigger.poll, UNSURE_S)
