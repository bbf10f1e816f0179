"""The version of an app's code: a hash of everything that runs.

In: the folders that the code is in, and what its functions watch. Out: a hash of its Python files, its other
files and the environment, which is shown as the version, and one of what was imported alone.

Excluded, since they change while the app runs: hidden files, bytecode caches, folders with a
`CACHEDIR.TAG`, virtual environments, SQLite databases and their journals, `*.log`, files that the
app's triggers watch, and a node's data folder.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from headrace.model.errors import Misuse
from headrace.model.function import FunctionSpec
from headrace.model.triggers.files import Files
from headrace.model.triggers.tables import SqlTable
from headrace.runtime.child.source_loader import SKIPPED

MAX_SOURCES: Final = 2_000
MAX_SOURCE_BYTES: Final = 64 << 20
MAX_DATA: Final = 2_000
"""Other files that count; of a folder that holds more, those that come first by name."""
MAX_DATA_BYTES: Final = 16 << 20
"""Bytes of them that are read; beyond these, files count by size and time of change."""
MAX_READ: Final = 1 << 20
"""Files of more bytes count by size and time of change."""
LOCKS: Final = frozenset(
    {"Pipfile.lock", "pdm.lock", "poetry.lock", "pylock.toml", "pyproject.toml"}
    | {"requirements.txt", "uv.lock"}
)
MAX_ABOVE: Final = 4
"""How many folders above the app's are looked through for its project's lock files."""
_WRITTEN: Final = (
    ".log",
    "nohup.out",
    "~",
    ".swp",
    ".tmp",
    "-wal",
    "-shm",
    "-journal",
    ".db",
    ".sqlite",
    ".sqlite3",
    ".db3",
)
_PASSING: Final = "pytest-cache-files-"
"""The name of pytest's cache while pytest fills it: at that time it has no marker file yet."""
_SQLITE: Final = b"SQLite format 3\x00"
Update: TypeAlias = Callable[[bytes], object]
"""Adds bytes to a hash."""


class CodeVersion(NamedTuple):
    """Version of an app's code.

    Attributes:
        shown: Everything: the version of the app.
        code: What cannot change while it runs: Python files, interpreter, installed distributions.
    """

    shown: str
    code: str


def version_of(roots: Iterable[Path], data_files: Collection[Path]) -> CodeVersion:
    """The version of an app.

    Args:
        roots: The folders, or files, that its code is in.
        data_files: Folders and files that count only where they are Python.

    Raises:
        Misuse: There are more Python files than a version should hold.
    """
    code, data = sha256(), sha256()
    left = MAX_DATA_BYTES
    for root in roots:
        sources, others = _files(root, data_files)
        base = root if root.is_dir() else root.parent
        _add_sources(code.update, base, sources)
        for file in [*others, *_locks_above(base)]:
            # The budget is shared by all roots: a deployment must not read more for an app of many
            # packages.
            left -= _add_data(data.update, os.path.relpath(file, base), file, left)
    # A new interpreter or dependency is new code although no file of the app has changed.
    for each in (sys.version, *sorted(_installed())):
        _add(code.update, each, b"")
    data.update(code.digest())
    return CodeVersion(data.hexdigest()[:12], code.hexdigest()[:12])


def watched_by(functions: Iterable[FunctionSpec]) -> frozenset[Path]:
    """Folders and files that functions watch, so that they change while those run."""
    triggers = [each for function in functions for each in function.triggers]
    folders = [each.path for each in triggers if isinstance(each, Files)]
    tables = [
        each.path for each in triggers if isinstance(each, SqlTable) and each.scheme == "sqlite"
    ]
    return frozenset(Path(each).resolve() for each in (*folders, *tables))


def is_part(file: Path, root: Path, data_files: Collection[Path]) -> bool:
    """Return whether a change of `file`, in a folder of an app's code, is another version of it.

    Args:
        file: It may be gone.
        root: The folder of the code.
        data_files: Folders and files that count only where they are Python.
    """
    if root not in file.parents:
        return False
    inner = [each for each in file.parents if root in each.parents]
    if file.name[0] == "." or any(_is_skipped(each) for each in inner):
        return False
    return file.suffix == ".py" or not (
        file.name.endswith(_WRITTEN)
        or any(each in data_files for each in (file, *file.parents))
        or _is_database(file)
    )


def _is_skipped(folder: Path) -> bool:
    # Marker files, since a virtual environment and a data folder may have any name.
    return (
        folder.name[0] == "."
        or folder.name in SKIPPED
        or folder.name.startswith(_PASSING)
        or (folder / "CACHEDIR.TAG").exists()
        or (folder / "pyvenv.cfg").exists()
        or (folder / "headrace.db").exists()
    )


def _is_database(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            # By content: databases have any suffix, and one that changes at every write would make
            # a new version each time.
            return opened.read(len(_SQLITE)) == _SQLITE
    except OSError:
        return False


def _files(root: Path, data_files: Collection[Path]) -> tuple[list[Path], list[Path]]:
    """Python files, and the others that count."""
    if root.is_file():
        return [root], []
    sources: list[Path] = []
    others: list[Path] = []
    for file in _walk(
        root,
        is_data=root in data_files or any(up in data_files for up in root.parents),
        data_files=data_files,
    ):
        if file.suffix == ".py":
            sources.append(file)
            if len(sources) > MAX_SOURCES:
                raise Misuse(
                    f"there are over {MAX_SOURCES:,} Python files next to `{root}`; give the app a "
                    "folder of its own"
                )
        elif len(others) < MAX_DATA:
            others.append(file)
    return sources, others


def _walk(folder: Path, *, is_data: bool, data_files: Collection[Path]) -> Iterator[Path]:
    """Yield the files below a folder that may count, in a deterministic order."""
    try:
        with os.scandir(folder) as found:
            # `scandir` returns the order of the file system, which differs between copies of one
            # folder.
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        # What the app's uid may not read, the app cannot import or open.
        if entry.name[0] == "." or not os.access(entry.path, os.R_OK):
            continue
        path = Path(entry.path)
        # A link to a folder above would never end.
        if entry.is_dir(follow_symlinks=False):
            if not _is_skipped(path):
                yield from _walk(path, is_data=is_data or path in data_files, data_files=data_files)
        # A read of a pipe or socket might never end.
        elif entry.is_file() and (
            entry.name.endswith(".py")
            or not (is_data or entry.name.endswith(_WRITTEN) or path in data_files)
        ):
            yield path


def _add_sources(update: Update, base: Path, files: Iterable[Path]) -> None:
    size = 0
    for file in files:
        raw = file.read_bytes()
        size += len(raw)
        if size > MAX_SOURCE_BYTES:
            raise Misuse(
                f"the Python files next to `{base}` are over {MAX_SOURCE_BYTES >> 20} MiB; "
                "give the app a folder of its own"
            )
        _add(update, file.relative_to(base).as_posix(), raw)


def _add_data(update: Update, name: str, file: Path, left: int) -> int:
    """Add a file to the hash; return how many bytes of it were read, of at most `left`."""
    try:
        about = file.stat()
        is_read = about.st_size <= min(MAX_READ, left)
        with file.open("rb") as opened:
            # The file may grow after `stat`, so the read is bounded too.
            raw = opened.read(MAX_READ if is_read else len(_SQLITE))
    except OSError:
        # Deleted meanwhile, or not readable: the app cannot use it either.
        return 0
    if raw.startswith(_SQLITE):
        return 0
    _add(update, name, raw if is_read else f"{about.st_size} {about.st_mtime_ns}".encode())
    return len(raw)


def _locks_above(base: Path) -> list[Path]:
    """The lock files of the project that a folder is in: those nearest above it."""
    for folder in (base, *base.parents)[: MAX_ABOVE + 1]:
        if found := sorted(each for name in LOCKS if (each := folder / name).is_file()):
            return found if folder != base else []
    return []


def _installed() -> set[str]:
    """Names and versions of the distributions that can be imported."""
    found: set[str] = set()
    for place in dict.fromkeys(sys.path):
        try:
            with os.scandir(place or ".") as entries:
                names = [entry.name for entry in entries]
        except OSError:
            continue
        found.update(name for name in names if name.endswith((".dist-info", ".egg-info")))
    return found


def _add(update: Update, name: str, raw: bytes) -> None:
    encoded = name.encode(errors="surrogateescape")
    # Lengths in front, so that moving bytes from one file's end to the next one's start changes
    # the hash.
    update(len(encoded).to_bytes(4, "big") + encoded + len(raw).to_bytes(8, "big") + raw)
