"""Imports the author's modules from their source, never from cached bytecode.

In: the folders (or the file) of an app's code. Out: an import system that compiles the modules in them; other
modules are loaded from bytecode as usual.
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
"""Folders below an app's folder that do not hold its code."""


class FromSource(SourceFileLoader):
    """Compiles the author's modules again; loads others from bytecode, as usual.

    Python takes bytecode as current if its source has the same size and the same time of change in
    seconds. Edits of one character have, and files that are unpacked with one date.
    """

    def get_code(self, fullname: str) -> CodeType | None:
        """Return the module's code."""
        path = self.get_filename(fullname)
        if not _is_authors(Path(path)):
            return super().get_code(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code


_authors: set[Path] = set()
"""Folders and files from which the author's code is imported."""


def import_from_source(roots: list[Path]) -> None:
    """Import modules below these roots from their current source."""
    _authors.update(roots)
    if _finder not in sys.path_hooks:
        sys.path_hooks.insert(0, _finder)
    # A folder that was searched before has a finder already, and the hooks run only for folders
    # without one.
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
