"""Inspection of a target's declarations, by a sandboxed zygote as on a node.

In: a target, and the environment of its app. Out: its description. The fleet exists only for this; no function runs,
and no file or process remains.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from headrace.environment.clock import SystemClock
from headrace.environment.randomness import SystemEntropy
from headrace.environment.tasks import Tasks
from headrace.model.errors import Misuse, Unavailable
from headrace.model.function import AppSpec
from headrace.model.settings import ImportEnvironment
from headrace.runtime.child.code_version import is_part
from headrace.runtime.fleet import Fleet
from headrace.runtime.host_services import HostServices
from headrace.runtime.import_environment import search_paths
from headrace.runtime.process.fleet_host import FleetHost
from headrace.runtime.process.instance_logs import InstanceLine

MAX_WORDS: Final = 2_000
"""Characters of the output of an import that ended its process."""
MAX_FILES: Final = 10_000
MAX_NAMED: Final = 10
FOLDER_MODE: Final = 0o711


async def inspect(target: str, import_environment: ImportEnvironment, folder: Path) -> AppSpec:
    """Return the declarations of the code at `target`.

    Args:
        target: The target to import.
        import_environment: The settings and variables of its app.
        folder: An empty folder, for scratch.

    Raises:
        Misuse: It cannot be imported, or could not be forked afterwards; the message says why.
    """
    lines: list[InstanceLine] = []
    # The instance's uid must pass through it, and cannot list it.
    folder.chmod(FOLDER_MODE)  # noqa: ASYNC240 - nobody else is on this loop
    tasks = Tasks(lambda _name, _error: None)
    fleet = Fleet(
        FleetHost(SystemClock(), SystemEntropy(), tasks, HostServices(), lines.append),
        scratch=folder / "scratch",
        import_environment=lambda: import_environment,
    )
    try:
        return await fleet.deploy(target)
    except Unavailable as error:
        words = "\n".join(line.message for line in lines)[-MAX_WORDS:]
        raise Misuse(
            f"{error}; do no work at import time, use `@app.init`\n{words}".rstrip()
        ) from error
    finally:
        await fleet.close(0.0)
        await tasks.close()


def unreadable(target: str) -> Iterator[str]:
    """Yield a sentence for each file next to the code that its app could not read on a node of this user."""
    if os.geteuid() != 0:
        # Apps run as this user then: a file that it cannot read has failed the import already.
        return
    found = 0
    for root in search_paths(target):
        for file in _closed(root):
            found += 1
            if found > MAX_NAMED:
                yield f"more files in `{root}` cannot be read by its app; `chmod -R a+rX {root}`"
                return
            yield (
                f"`{file}` cannot be read by the app: its code never runs as root; let every user read "
                f"it (`chmod a+rX`), or keep what is secret with `secrets=`"
            )


def _closed(root: Path) -> Iterator[Path]:
    """Yield files and folders of the code that only their owner and group can read."""
    looked = 0
    for place, folders, files in os.walk(root):
        open_folders = []
        for name in sorted(folders):
            folder = Path(place, name)
            if not is_part(folder / "a.py", root, ()):
                continue
            if folder.stat().st_mode & (stat.S_IROTH | stat.S_IXOTH) != stat.S_IROTH | stat.S_IXOTH:
                yield folder
            else:
                open_folders.append(name)
        folders[:] = open_folders
        for name in sorted(files):
            looked += 1
            if looked > MAX_FILES:
                return
            file = Path(place, name)
            if (
                file.is_file()
                and not file.stat().st_mode & stat.S_IROTH
                and is_part(file, root, ())
            ):
                yield file
