"""Hosts in processes of their own, under the rights a test chooses, with daemons beneath them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from tests.integration.runtime_fleets import lives

NOBODY = 65_534
SOURCE = Path(__file__).parents[2]

LAUNCH = """
import os, resource, sys
from headrace.runtime import kernel
from headrace.runtime.sandbox import mounts, seccomp
uid, namespaces = int(sys.argv[1]), sys.argv[2] == "namespaces"
if os.geteuid() == 0:
    os.chmod(sys.argv[3], 0o777)
    mounts.unlock([*filter(None, sys.path), sys.prefix, sys.base_prefix, {source!r}, sys.argv[3]])
if uid:
    # Whatever a test breaks, the machine is spared.
    resource.setrlimit(resource.RLIMIT_NPROC, (2_000, 2_000))
    os.setgroups([]); os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid)
if not namespaces:
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    kernel.set_seccomp(seccomp.deny_list(kernel.ARCHITECTURE))
os.chdir(sys.argv[3])
os.execv(sys.executable, [sys.executable, "-c", sys.argv[4], sys.argv[3]])
"""
"""Takes rights away and becomes the host; the interpreter stays reachable for every uid."""

HOST = """
import asyncio, sys
sys.path[:0] = [{source!r}]
from pathlib import Path
from tests.integration.runtime_fleets import House, parent_of
async def main():
    home = House(Path(sys.argv[1]))
    await home.deploy('''
def daemonise():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for fd in range(64):
                try: os.close(fd)
                except OSError: pass
            os.execvp("sleep", ["sleep", "{seconds}"])
        os._exit(0)
    os.wait()
@app.function(orders, resources=Resources(isolation={isolation}))
def bad(events, context):
    while {bombs}:
        try: os.fork()
        except OSError: pass
    daemonise()
    if os.fork() == 0:
        os.execvp("sleep", ["sleep", "{seconds}"])
    time.sleep(0.2)
    context.publish(priced, b"ready")
    if {stays}: time.sleep(60)
''')
    running = asyncio.ensure_future(home.run("bad", within=90))
    if not {stays}: await running
    while not home.fleet.instances() or not home.fleet.instances()[0].pid:
        await asyncio.sleep(0.01)
    instance = home.fleet.instances()[0].pid
    zygote = parent_of(instance)
    print(parent_of(zygote), zygote, instance, flush=True)
    await asyncio.sleep(90)
asyncio.run(main())
"""


@dataclass
class Host:
    """A host, what it started, and the mark its daemons bear."""

    process: subprocess.Popen[str]
    warden: int
    zygote: int
    instance: int
    mark: str

    def daemons(self) -> list[int]:
        """What the function left running."""
        found: list[int] = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    line = (entry / "cmdline").read_bytes()
                except OSError:
                    continue
                if line.split(b"\0")[:2] == [b"sleep", self.mark.encode()]:
                    found.append(int(entry.name))
        return [pid for pid in found if lives(pid)]

    def remains(self) -> list[int]:
        """Whatever lives of all it started."""
        ours = [pid for pid in (self.warden, self.zygote, self.instance) if lives(pid)]
        return [*ours, *self.daemons()]


@contextmanager
def launched(
    folder: Path,
    *,
    uid: int,
    namespaces: bool,
    isolation: int = 1,
    stays: bool = True,
    bombs: bool = False,
) -> Iterator[Host]:
    """A host that has run a function which left two processes behind."""
    mark = f"600.{uuid4().int % 10**12:012}"
    program = HOST.format(
        source=str(SOURCE), seconds=mark, isolation=isolation, stays=stays, bombs=bombs
    )
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            LAUNCH.format(source=str(SOURCE)),
            str(uid),
            "namespaces" if namespaces else "none",
            str(folder),
            program,
        ],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert process.stdout is not None
    try:
        warden, zygote, instance = map(int, process.stdout.readline().split())
        yield Host(process, warden, zygote, instance, mark)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
