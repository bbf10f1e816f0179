"""Imports the author's modules from their source: what runs is what stands there.

In: the folders (or the file) that an app's code is in. Out: an import system that compiles what lies
there and reads no bytecode of it; of other modules the bytecode is read as ever.
"""

from __future__ import annotations

import sys
from importlib.machinery import (
    BYTECODE_SUFFIXES,
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    SourceFileLoader,
    SourcelessFileLoader,
)
from pathlib import Path
from types import CodeType
from typing import Final

SKIPPED: Final = frozenset({"__pycache__", "node_modules", "site-packages"})
"""Folders beneath an app's that hold no code of its own."""


class FromSource(SourceFileLoader):
    """Compiles the author's modules again; of others the bytecode is read, as usual.

    Python takes bytecode for current where its source has the same size and was changed in the same
    second, as edits of one character have, and files that are unpacked with one date.
    """

    def get_code(self, fullname: str) -> CodeType | None:
        """The module's code."""
        path = self.get_filename(fullname)
        if not _is_authors(Path(path)):
            return super().get_code(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code


_authors: set[Path] = set()
"""The folders and files that the author's code is imported from."""


def import_from_source(roots: list[Path]) -> None:
    """Let what is imported from there be what stands there now."""
    _authors.update(roots)
    if _finder not in sys.path_hooks:
        sys.path_hooks.insert(0, _finder)
    for known in list(sys.path_importer_cache):
        if any(_is_next_to(Path(known), root) for root in roots):
            del sys.path_importer_cache[known]


def _finder(folder: str) -> FileFinder:
    path = Path(folder or ".").resolve()
    if not path.is_dir() or not any(_is_next_to(path, root) for root in _authors):
        raise ImportError(f"`{folder}` holds no code of the app")
    return FileFinder(
        folder,
        (ExtensionFileLoader, EXTENSION_SUFFIXES),
        (FromSource, SOURCE_SUFFIXES),
        (SourcelessFileLoader, BYTECODE_SUFFIXES),
    )


def _is_next_to(folder: Path, root: Path) -> bool:
    return folder in (root, root.parent) or root in folder.parents


def _is_authors(file: Path) -> bool:
    """Return whether a file is the author's: beneath a root, and not in a virtual environment there."""
    for root in _authors:
        if file == root:
            return True
        if root in file.parents:
            inner = file.relative_to(root).parts[:-1]
            if not any(part[0] == "." or part in SKIPPED for part in inner):
                return True
    return False
