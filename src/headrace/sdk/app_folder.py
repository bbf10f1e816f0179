"""Folder of an app's own files: beneath the node's data folder, or in a temporary folder without a node.

In: an app's name. Out: a path that stays the same for as long as the process lives. Without a node, in
a test or in a shell, the folder is made at the first look and is gone with the process.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

_PREFIX = "headrace-files-"


class FolderRoot:
    """Folders of this process's apps; there is one instance.

    Attributes:
        root: Where a node keeps them; None without a node.
        used: The folders that were asked for, by app.
    """

    def __init__(self) -> None:
        self.root: Path | None = None
        self.used: dict[str, Path] = {}
        self._on_use: Callable[[str], None] | None = None

    def stand(self, root: str, on_use: Callable[[str], None] | None) -> None:
        """Have folders beneath `root` from now on; `on_use` is called at the first use of each."""
        self.root = Path(root)
        self._on_use = on_use

    def folder(self, app: str) -> Path:
        """The app's folder."""
        found = self.used.get(app)
        if found is None:
            found = self._made(app) if self.root is None else self.root / app
            self.used[app] = found
            if self._on_use is not None:
                self._on_use(str(found))
        return found

    def empty(self, app: str) -> None:
        """Delete what a folder without a node holds; do nothing if it was never used."""
        import shutil

        if self.root is None and (folder := self.used.get(app)) is not None:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700, exist_ok=True)

    def _made(self, app: str) -> Path:
        import tempfile
        import weakref

        held = tempfile.mkdtemp(prefix=f"{_PREFIX}{app}-")
        weakref.finalize(self, _remove, held)
        return Path(held)


def _remove(folder: str) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


folders = FolderRoot()
