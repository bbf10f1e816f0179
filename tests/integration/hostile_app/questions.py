"""What a hostile function tries. Each question answers how it was refused, or that it was not.

Runs inside an app's process: as it is imported (`ASKED_AT_IMPORT`) or within a run (`QUESTIONS`). In:
facts that an attacker could find out by himself (`about`). Out: `REACHED`, or the name of what refused.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import signal
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from headrace.runtime import kernel
from headrace.runtime.child.channel import Channel, HostRefused
from headrace.runtime.protocol.messages import ReadSecret, ReadState, ScanState, StateRows
from headrace.runtime.sandbox.seccomp import NUMBERS

REACHED: Final = "reached"
NOTHING: Final = "nothing there"
OFFLINE: Final = ", with `network=False`"
"""How the names of questions end that are for a function without a network."""
About = dict[str, Any]
Question = Callable[[About], object]
QUESTIONS: dict[str, tuple[str, Question]] = {}
"""By name: the group it stands in, and what is done. What is given back and true was reached."""
ASKED_AT_IMPORT: Final[list[str]] = []


class Refused(Exception):
    """How something was refused that is not told by an `OSError`."""


def asked(name: str, about: About) -> str:
    """The answer to a question."""
    _, ask = QUESTIONS[name]
    try:
        return REACHED if ask(about) is not False else NOTHING
    except OSError as error:
        if error.errno is None:
            return type(error).__name__
        return errno.errorcode.get(error.errno, str(error.errno))
    except (Refused, HostRefused) as error:
        return str(error)
    except MemoryError:
        return "MemoryError"


def question(group: str, name: str, *, at_import: bool = False) -> Callable[[Question], Question]:
    """A function that is a question."""

    def add(ask: Question) -> Question:
        QUESTIONS[name] = group, ask
        if at_import:
            ASKED_AT_IMPORT.append(name)
        return ask

    return add


# -- the door ---------------------------------------------------------------------------------------


def request(about: About, method: str, path: str, body: object, **headers: str) -> bool:
    """A request of the function's own to its node."""
    data = None if body is None else json.dumps(body).encode()
    made = urllib.request.Request(about["url"] + path, data=data, headers=headers, method=method)
    try:
        with urllib.request.urlopen(made, timeout=5) as answer:
            answer.read()
    except urllib.error.HTTPError as error:
        error.close()
        raise Refused(str(error.code)) from None
    return True


_TOKEN = {"name": "mine", "scopes": ["admin"]}
for _name, _method, _path, _body in (
    ("make itself a token", "POST", "/-/v1/tokens", _TOKEN),
    ("list tokens", "GET", "/-/v1/tokens", None),
    ("ask for a link to the console", "POST", "/-/v1/console/links", {}),
    ("pause another app's function", "POST", "/-/v1/functions/victim.keep/pause", {}),
    ("look at the console", "GET", "/console", None),
    ("read another app's state", "GET", "/-/v1/state/victim/victim.keep", None),
    ("read the records of another app's stream", "GET", "/-/v1/streams/open/records", None),
    ("read the records of a private stream", "GET", "/-/v1/streams/inner/records", None),
    ("publish to another app's stream", "POST", "/-/v1/streams/open", {"forged": True}),
    ("publish to a private stream", "POST", "/-/v1/streams/inner", {"forged": True}),
    ("call another app's function", "POST", "/-/v1/functions/victim.keep", "forged"),
):

    def _ask(about: About, method: str = _method, path: str = _path, body: object = _body) -> bool:
        return request(about, method, path, body)

    question("door", _name)(_ask)


@question("door", "make itself a token by a child process in a session of its own")
def _from_child(about: About) -> bool:
    return in_child(lambda: asked("make itself a token", about))


@question("door", "make itself a token as a page of the node's own address")
def _as_page(about: About) -> bool:
    return request(about, "POST", "/-/v1/tokens", _TOKEN, origin=about["url"])


@question("door", "make itself a token with a guessed key")
def _with_guess(about: About) -> bool:
    return request(about, "POST", "/-/v1/tokens", _TOKEN, authorization=f"Bearer {'a' * 43}")


# -- files ------------------------------------------------------------------------------------------


def read(path: str) -> bool:
    """Whether something can be read there."""
    with open(path, "rb") as file:  # noqa: PTH123
        file.read(1)
    return True


def write(path: str) -> bool:
    """Whether it could be written; it is not."""
    os.close(os.open(path, os.O_RDWR))
    return True


def make(folder: str) -> bool:
    """Whether a file can be made there; it is taken away again."""
    path = f"{folder}/forged"
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    os.unlink(path)  # noqa: PTH108
    return True


for _name, _do, _key, _inner, _early in (
    ("read the log and state (`headrace.db`)", read, "data", "headrace.db", True),
    ("read its write-ahead log", read, "data", "headrace.db-wal", False),
    ("write the log and state", write, "data", "headrace.db", True),
    ("read the operator's key", read, "data", "operator.key", False),
    ("read the note of the node's address", read, "data", "node.json", False),
    ("list the data folder", os.listdir, "data", "", True),
    ("make a file in the data folder", make, "data", "", False),
    ("list the folder of all scratch folders", os.listdir, "data", "scratch", False),
    ("read a file of a sibling's scratch folder", read, "scratch", "mine", False),
    ("write a file of a sibling's scratch folder", write, "scratch", "mine", False),
    ("list another app's own folder", os.listdir, "folders", "victim", True),
    ("read a file of another app's own folder", read, "folders", "victim/card", False),
    ("write a file of another app's own folder", write, "folders", "victim/card", False),
    ("make a file in another app's own folder", make, "folders", "victim", True),
    ("list the folder of all apps' own folders", os.listdir, "folders", "", False),
    ("write what a sibling keeps in their app's own folder", write, "kept", "mine", False),
    ("read the settings (`headrace.toml`, 0600)", read, "place", "headrace.toml", True),
    ("write the settings", write, "place", "headrace.toml", False),
    ("read an operator's secret file (0600)", read, "place", "secret", True),
    ("read another app's source", read, "victim", "app.py", True),
    ("write another app's source", write, "victim", "app.py", True),
    ("write its own source", write, "own", "app.py", False),
    ("read the machine's passwords (`/etc/shadow`)", read, "etc", "shadow", False),
):

    def _look(
        about: About, do: Callable[[str], object] = _do, key: str = _key, inner: str = _inner
    ) -> bool:
        do(f"{about[key]}/{inner}".rstrip("/"))
        return True

    question("files", _name, at_import=_early)(_look)


# -- other processes --------------------------------------------------------------------------------


def libc(name: str, *arguments: object) -> bool:
    """A function of the C library that gives -1 where it is refused."""
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), name)
    return True


def trace(pid: int) -> bool:
    """Attach as a debugger does, and let go."""
    attach, detach = 16, 17
    libc("ptrace", attach, pid, None, None)
    os.waitpid(pid, 0)
    return libc("ptrace", detach, pid, None, None)


def limit(pid: int) -> bool:
    """Look at and set a limit of another process."""
    resource.prlimit(pid, resource.RLIMIT_CORE, resource.prlimit(pid, resource.RLIMIT_CORE))
    return True


for _who, _key in (("the zygote", "zygote"), ("a sibling", "sibling")):
    for _name, _act in (
        ("signal", lambda pid: os.kill(pid, 0)),
        ("trace", trace),
        ("open the memory of", lambda pid: write(f"/proc/{pid}/mem")),
        ("read the environment of", lambda pid: read(f"/proc/{pid}/environ")),
        ("list the descriptors of", lambda pid: list(Path(f"/proc/{pid}/fd").iterdir())),
        ("change the limits of", limit),
    ):

        def _reach(about: About, act: Callable[[int], object] = _act, key: str = _key) -> bool:
            pid: int = about[key]
            act(pid)
            return True

        question("processes", f"{_name} {_who}")(_reach)


@question("processes", "signal the host")
def _signal_host(about: About) -> None:
    os.kill(about["host"], 0)


@question("processes", "see the host in `/proc`")
def _see_host(about: About) -> bool:
    return b"headrace" in Path(f"/proc/{about['host']}/cmdline").read_bytes()


@question("processes", "find a descriptor of the host's, an open file or socket of others")
def _foreign_descriptors(about: About) -> bool:
    for each in list(Path("/proc/self/fd").iterdir()):
        try:
            leads = str(each.readlink())
        except OSError:
            continue
        if leads.startswith(about["data"]) and "scratch" not in leads:
            return True
    return False


@question("processes", "find the host's environment in its own")
def _environment(about: About) -> bool:
    return "HOSTILE_SECRET" in os.environ


# -- the network ------------------------------------------------------------------------------------


def opened(family: int, kind: int, protocol: int = 0) -> bool:
    """Whether such a socket can be made."""
    socket.socket(family, kind, protocol).close()
    return True


def connected(family: int, address: object) -> bool:
    """Whether somebody can be connected to. Nobody answers in time: nothing of ours refused it."""
    with socket.socket(family, socket.SOCK_STREAM) as link:
        link.settimeout(0.3)
        try:
            link.connect(address)  # type: ignore[arg-type]
        except TimeoutError:
            return True
        except OSError as error:
            if error.errno in {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ECONNREFUSED}:
                return True
            raise
    return True


def listening(family: int, address: object) -> bool:
    """Whether it can listen."""
    with socket.socket(family, socket.SOCK_STREAM) as link:
        link.bind(address)  # type: ignore[arg-type]
        link.listen()
    return True


NETWORK: Final = {
    "connect to another port of the machine": lambda about: connected(
        socket.AF_INET, ("127.0.0.1", about["port"])
    ),
    "connect to the metadata address (169.254.169.254)": lambda about: connected(
        socket.AF_INET, ("169.254.169.254", 80)
    ),
    "listen on a port": lambda about: listening(socket.AF_INET, ("127.0.0.1", 0)),
    "ask the kernel by netlink": lambda about: opened(socket.AF_NETLINK, socket.SOCK_RAW),
    "open a raw socket": lambda about: opened(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
    "read the wire (packet socket)": lambda about: opened(socket.AF_PACKET, socket.SOCK_RAW),
    "connect to another's abstract unix socket": lambda about: connected(
        socket.AF_UNIX, about["abstract"]
    ),
    "connect to another's unix socket in the file system": lambda about: connected(
        socket.AF_UNIX, f"{about['place']}/socket"
    ),
}
for _name, _ask_network in NETWORK.items():
    question("network", _name)(_ask_network)
    if _name in {
        "connect to another port of the machine",
        "connect to the metadata address (169.254.169.254)",
        "ask the kernel by netlink",
    }:
        question("network", f"{_name}{OFFLINE}")(_ask_network)


# -- the kernel -------------------------------------------------------------------------------------

for _name, _function, *_arguments in (
    ("mount a file system", "mount", b"none", b"/tmp", b"tmpfs", 0, None),
    ("make namespaces of its own", "unshare", kernel.CLONE_NEWUSER),
    ("join the namespace of another", "setns", 0, 0),
):

    def _kernel(
        about: About, function: str = _function, arguments: Any = tuple(_arguments)
    ) -> bool:
        return libc(function, *arguments)

    question("kernel", _name)(_kernel)

for _name, _call in (
    ("load a program into the kernel (`bpf`)", "bpf"),
    ("use another's keys (`keyctl`)", "keyctl"),
    ("watch the machine (`perf_event_open`)", "perf_event_open"),
    ("go round the filter (`io_uring_setup`)", "io_uring_setup"),
    ("take a descriptor of another's (`pidfd_getfd`)", "pidfd_getfd"),
    ("read another's memory (`process_vm_readv`)", "process_vm_readv"),
):

    def _syscall(about: About, call: str = _call) -> bool:
        number = NUMBERS[call][kernel.ARCHITECTURE == "aarch64"]
        return libc("syscall", number, 0, 0, 0, 0, 0)

    question("kernel", _name)(_syscall)


@question("kernel", "become root")
def _become_root(about: About) -> None:
    os.setuid(0)


@question("kernel", "become the host's user")
def _become_host(about: About) -> bool:
    if os.getuid() == about["host_uid"]:
        return True
    os.setresuid(about["host_uid"], about["host_uid"], about["host_uid"])
    return True


@question("kernel", "change its root folder")
def _chroot(about: About) -> None:
    os.chroot("/")


def status(name: str) -> str:
    """A row of its own in `/proc`."""
    with open("/proc/self/status") as file:  # noqa: PTH123
        return dict(line.split(":", 1) for line in file)[name].strip()


@question("kernel", "have a capability", at_import=True)
def _capability(about: About) -> bool:
    return int(status("CapPrm"), 16) != 0


@question("kernel", "gain rights by a setuid program")
def _setuid(about: About) -> bool:
    return status("NoNewPrivs") != "1"


# -- the host ---------------------------------------------------------------------------------------


def channel() -> Channel:
    """The instance's end of what leads to its host."""
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        for held in frame.f_locals.values():
            found = held if isinstance(held, Channel) else getattr(held, "_channel", None)
            if isinstance(found, Channel):
                return found
    raise Refused("not found")


@question("host", "read another app's state by a raw question")
def _raw_read(about: About) -> bool:
    keys = ["card", "victim/card", "victim\0card", "../victim/card", "victim.keep|card"]
    answer = channel().ask(ReadState(keys))
    return isinstance(answer, StateRows) and any(value is not None for _, value in answer.rows)


@question("host", "read a store that the app does not declare by a raw question")
def _raw_store(about: About) -> bool:
    refused = "nothing"
    for store in ("victim.keep", "hostile.ask1", "/windows", "victim\0victim.keep"):
        for asked in (ReadState(["card"], store), ScanState("", 100, "", store)):
            try:
                return bool(channel().ask(asked))
            except HostRefused as error:
                refused = error.kind
    raise Refused(refused)


@question("host", "scan another app's state by a raw question")
def _raw_scan(about: About) -> bool:
    return "4000" in repr([channel().ask(ScanState(each, 100)) for each in ("", "victim", "../")])


@question("host", "ask for another app's secret by a raw question")
def _raw_secret(about: About) -> bool:
    refused = "nothing"
    for of_run in (True, False):
        try:
            return "4000" in repr(channel().ask(ReadSecret("VICTIMS_CARD"), of_run=of_run).value)  # type: ignore[union-attr]  # or it is refused
        except HostRefused as error:
            refused = error.kind
    raise Refused(refused)


# -- more than its share ----------------------------------------------------------------------------


def in_child(act: Callable[[], str]) -> bool:
    """Ask in a forked process; what it was answered."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            os.write(theirs, act().encode())
        finally:
            os._exit(0)
    os.close(theirs)
    with open(ours, "rb") as pipe:  # noqa: PTH123
        answer = pipe.read().decode()
    os.waitpid(pid, 0)
    if answer != REACHED:
        raise Refused(answer or "killed")
    return True


@question("share", "take more memory than `memory=` allows")
def _memory(about: About) -> bool:
    return len(bytearray(about["memory"] + (64 << 20))) > 0


@question("share", "start more processes than `processes=` allows")
def _processes(about: About) -> None:
    started = []
    try:
        for _ in range(about["processes"] + 8):
            pid = os.fork()
            if pid == 0:
                signal.pause()
                os._exit(0)
            started.append(pid)
    finally:
        for pid in started:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@question("share", "open more files than `files=` allows")
def _files(about: About) -> None:
    found: list[int] = []
    try:
        while len(found) < about["files"] + 8:
            found.append(os.open("/dev/null", os.O_RDONLY))
    finally:
        for each in found:
            os.close(each)


@question("share", "write a larger file than `file_size=` allows")
def _file_size(about: About) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with open("large", "wb") as file:  # noqa: PTH123
        file.truncate(about["file_size"] + 1)
