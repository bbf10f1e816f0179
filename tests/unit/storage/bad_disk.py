"""A file layer under SQLite whose calls fail as a test says, and an end that can be caught."""

from __future__ import annotations

from collections.abc import Callable

import apsw


class BadDisk(apsw.VFS):
    """A file layer whose calls fail as a test says: `fail(kind, file name)` raises or passes."""

    def __init__(self) -> None:
        self.fail: Callable[[str, str], None] = lambda _kind, _name: None
        super().__init__(f"bad-{id(self)}", "")
        self.name = f"bad-{id(self)}"

    def xOpen(  # noqa: N802 - SQLite's name
        self, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> BadFile:
        return BadFile(self, name, flags)


class BadFile(apsw.VFSFile):
    def __init__(
        self, disk: BadDisk, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> None:
        super().__init__("", name, flags)
        self._disk = disk
        self._name = str(name.filename() if isinstance(name, apsw.URIFilename) else name)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 - SQLite's name
        self._disk.fail("write", self._name)
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:  # noqa: N802 - SQLite's name
        self._disk.fail("sync", self._name)
        super().xSync(flags)


class Ended(Exception):
    """Stands for the end of the process."""


def end(message: str) -> None:
    raise Ended(message)
