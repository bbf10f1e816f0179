"""File systems to break: one in a file whose power can be cut, and one that is small.

Both need root. Whoever opens one gets it mounted at a folder and has it taken away at the end,
whatever happened.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.integration.faults.processes import wait_until

_FS_IOC_SHUTDOWN = 0x8004587D
_NOLOGFLUSH = 2
SIZE_BYTES = 384 << 20
KINDS = ("ext4", "xfs")


class Disk:
    """A file system in a file."""

    def __init__(self, kind: str, image: Path, where: Path) -> None:
        self.kind = kind
        self._image = image
        self._where = where
        self._loop = ""
        self._mounted = False

    def mount(self) -> None:
        """Mount it; the journal is replayed, as after any loss of power."""
        # A new loop device each time: the old one may live on in somebody's mount namespace.
        self._loop = _run("losetup", "--find", "--show", str(self._image))
        options = "nouuid" if self.kind == "xfs" else "defaults"
        _run("mount", "-t", self.kind, "-o", options, self._loop, str(self._where))
        self._mounted = True
        self._where.chmod(0o755)

    def cut(self) -> None:
        """Cut the power: what was not made durable is gone, the journal's memory included."""
        handle = os.open(self._where, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, _FS_IOC_SHUTDOWN, struct.pack("I", _NOLOGFLUSH))
        finally:
            os.close(handle)

    def unmount(self) -> None:
        """Let go of it, once nobody uses it any more."""
        if self._mounted:
            # A dead file system cannot be asked whether it is mounted.
            wait_until(self._unmounted, seconds=10, what=f"{self._where} can be unmounted")
            self._mounted = False
        if self._loop:
            _run("losetup", "--detach", self._loop)
            self._loop = ""

    def _unmounted(self) -> bool:
        return subprocess.run(["umount", str(self._where)], capture_output=True).returncode == 0


@contextlib.contextmanager
def cuttable(kind: str, folder: Path, where: Path) -> Iterator[Disk]:
    """A fresh file system of this kind, mounted at `where`, its image kept in `folder`."""
    image = folder / f"{kind}.img"
    with image.open("wb") as file:
        file.truncate(SIZE_BYTES)
    _run(f"mkfs.{kind}", "-q", str(image))
    where.mkdir(exist_ok=True)
    disk = Disk(kind, image, where)
    try:
        disk.mount()
        yield disk
    finally:
        disk.unmount()
        image.unlink()


@contextlib.contextmanager
def small(where: Path, size: int, *, files: int = 0) -> Iterator[None]:
    """A file system in memory that holds no more than `size` bytes and (not 0) `files` files."""
    where.mkdir(exist_ok=True)
    options = f"size={size},nr_inodes={files},mode=755"
    _run("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(where))
    try:
        yield
    finally:
        _run("umount", "--lazy", str(where))


def why_no_mounts(kind: str, folder: Path) -> str:
    """Why this machine cannot cut the power of such a disk; "" where it can."""
    if os.geteuid() != 0:
        return "mounting needs root"
    if shutil.which(f"mkfs.{kind}") is None:
        return f"mkfs.{kind} is not installed"
    probe = folder / "probe"
    try:
        with cuttable(kind, folder, probe) as disk:
            disk.cut()
    except (OSError, subprocess.CalledProcessError) as error:
        said = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else error
        return f"this machine does not let us mount and shut down {kind}: {said}"
    return ""


def _run(*command: str) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.strip()
