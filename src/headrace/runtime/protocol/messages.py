"""The messages between host, zygotes and instances, as frames carry them. Pure.

Each is tagged, so that what an instance says can be told from what it may not say: bytes from a
child are hostile until proven otherwise, and a body of another form comes out as a `ProtocolError`
value, after which the channel is to be closed and the child killed.
"""

from __future__ import annotations

import zlib
from typing import TypeAlias

import msgspec

from headrace.model.function import AppSpec
from headrace.model.invocation import Invocation
from headrace.model.outcome import Cause, Returned, Scanned
from headrace.model.policy import MAX_FRAME_BYTES, Resources
from headrace.model.record import Chunk
from headrace.model.reply import WireReply
from headrace.model.settings import Provision
from headrace.runtime.protocol.frames import HEAD, MASK, ProtocolError

MAX_SCAN_ROWS = 10_000
MAX_LINE_BYTES = 8_192

MARK = b"\x1e"
"""Begins a record on a log pipe; bare lines have none."""

EXIT_HOOK = 70
"""An instance's exit code after a hook of the author failed."""
EXIT_MEMORY = 71
EXIT_NOT_STARTED = 231
"""It could not be made ready to run anything: no room for its folder, say."""
"""An instance's exit code when it ran out of memory outside the handler."""
EXIT_CHANNEL = 72
"""An instance's exit code when its channel broke under it."""


# -- between host and instance ------------------------------------------------------------------


class RunMessage(msgspec.Struct, array_like=True, frozen=True, tag=1, gc=False):
    """Host to child: run this. The frame's nonce comes back on everything about this run.

    Attributes:
        invocation: What to run.
        ahead: It was sent while another ran: it may be begun only once it is claimed
            (`runtime.prefetch`), and is skipped where the host has taken it back.
    """

    invocation: Invocation
    ahead: bool = False


class Done(msgspec.Struct, array_like=True, frozen=True, tag=2, gc=False):
    """Child to host: this came of it."""

    returned: Returned


class Hello(msgspec.Struct, array_like=True, frozen=True, tag=3, gc=False):
    """Child to host: the start hooks are through, runs are taken up; or `refusal` says why not."""

    seconds: float
    refusal: Cause | None = None


class ReadState(msgspec.Struct, array_like=True, frozen=True, tag=4, gc=False):
    """Child to host: version and value of these keys of a store; see `model.stores`."""

    keys: list[str]
    store: str = ""


class ScanState(msgspec.Struct, array_like=True, frozen=True, tag=5, gc=False):
    """Child to host: what a store holds under a prefix behind the key `begin`, ascending."""

    prefix: str
    limit: int
    begin: str = ""
    store: str = ""


class StateRows(msgspec.Struct, array_like=True, frozen=True, tag=6, gc=False):
    """Host to child: the answer to `ReadState`."""

    rows: list[tuple[int, bytes | None]]


class Scan(msgspec.Struct, array_like=True, frozen=True, tag=7, gc=False):
    """Host to child: the answer to `ScanState`."""

    scanned: Scanned


class Denied(msgspec.Struct, array_like=True, frozen=True, tag=8, gc=False):
    """Host to child: the question cannot be answered.

    Attributes:
        final: Whether the same question would meet the same again.
    """

    kind: str
    message: str
    final: bool = False


class ReadSecret(msgspec.Struct, array_like=True, frozen=True, tag=32, gc=False):
    """Child to host: the value of this secret; the one question that no run has to be behind."""

    name: str


class SecretRead(msgspec.Struct, array_like=True, frozen=True, tag=33, gc=False):
    """Host to child: the answer to `ReadSecret`."""

    value: str

    def __repr__(self) -> str:
        return "SecretRead(...)"


class Ask(msgspec.Struct, array_like=True, frozen=True, tag=28, gc=False):
    """Child to host: a question of the run at hand; its answer bears the same number."""

    number: int
    question: ReadState | ScanState | ReadSecret | Fetch | Land | Part


class Answered(msgspec.Struct, array_like=True, frozen=True, tag=29, gc=False):
    """Host to child: the answer to the question of that number."""

    number: int
    answer: StateRows | Scan | SecretRead | Fetched | Landed | PartAccepted | Denied


class Suspend(msgspec.Struct, array_like=True, frozen=True, tag=9, gc=False):
    """Host to child: close what does not survive a pause; a stop signal follows your answer.

    The next run wakes it, and the resume hooks come before that run.
    """


class Stop(msgspec.Struct, array_like=True, frozen=True, tag=11, gc=False):
    """Host to child: run the stop hooks and exit."""


class Acted(msgspec.Struct, array_like=True, frozen=True, tag=12, gc=False):
    """Child to host: the hooks of `Suspend` have run; `cause` where one failed."""

    cause: Cause | None = None


class Skipped(msgspec.Struct, array_like=True, frozen=True, tag=27, gc=False):
    """Child to host: a run that was sent ahead, and taken back, has been passed over."""


class Extend(msgspec.Struct, array_like=True, frozen=True, tag=14, gc=False):
    """Child to host: the run at hand may take `seconds` from now."""

    seconds: float


class Fetch(msgspec.Struct, array_like=True, frozen=True, tag=15, gc=False):
    """Child to host: the next events of the run at hand, up to `events`."""

    events: int


class Fetched(msgspec.Struct, array_like=True, frozen=True, tag=16, gc=False):
    """Host to child: the answer to `Fetch`; `lag` events are left."""

    chunks: list[Chunk]
    lag: int


class Land(msgspec.Struct, array_like=True, frozen=True, tag=17, gc=False):
    """Child to host: commit what was fetched, and done for it, since the last time."""

    returned: Returned


class Landed(msgspec.Struct, array_like=True, frozen=True, tag=18, gc=False):
    """Host to child: it is durable."""


class Part(msgspec.Struct, array_like=True, frozen=True, tag=19, gc=False):
    """Child to host: the next part of an answer that is sent as it comes; `head` at most with the first."""

    body: bytes
    head: WireReply | None = None


class PartAccepted(msgspec.Struct, array_like=True, frozen=True, tag=10, gc=False):
    """Host to child: there is room for the next part."""


class Partitions(msgspec.Struct, array_like=True, frozen=True, tag=13, gc=False):
    """Host to child: how many partitions the streams of other apps have."""

    counts: dict[str, int]


# -- between host and zygote --------------------------------------------------------------------


class InstanceFolder(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Folder of an instance: its name in its zygote's scratch folder, and its uid (0: none)."""

    name: str
    uid: int


class Load(msgspec.Struct, array_like=True, frozen=True, tag=20, gc=False):
    """Host to zygote: import this, then be ready to fork; the first thing ever said.

    `uid` is the first of the ids that are this zygote's, 0 where the host has none to give;
    `next` is what the first instance will be given. `files` is the folder in which apps have theirs,
    `group` the one that instances share there, of use where there is a uid.
    """

    target: str
    paths: list[str]
    scratch: str
    isolation: int
    uid: int
    next: InstanceFolder
    files: str
    group: int


class Needs(msgspec.Struct, array_like=True, frozen=True, tag=30, gc=False):
    """Zygote to host, while it imports: the app of this name asks for its settings and these variables."""

    app: str
    variables: list[str]


class Provided(msgspec.Struct, array_like=True, frozen=True, tag=31, gc=False):
    """Host to zygote: the answer to `Needs`."""

    provision: Provision


class Loaded(msgspec.Struct, array_like=True, frozen=True, tag=21, gc=False):
    """Zygote to host: the app is imported, the sandbox isolation_name.

    Attributes:
        spec: What was declared.
        size: The zygote's address space in bytes, on top of which instances get theirs.
        level: The isolation level its instances will really have, at most.
        isolation_name: What it isolation_name on, in words.
        notes: What was asked for and could not be had, and why.
        seconds: How long the import took.
        resident: Bytes of memory it has, those it shares with files included.
        weight: Bytes of its own, which instances share until they write to them.
        sends_hello: Whether its instances say hello, since they have start hooks to run first; others
            take up runs from the fork on.
        code: A hash of what was imported: a part of what the spec's version is of.
        shares: Its instances have uids of their own, and share the app's files by their group.
    """

    spec: AppSpec
    size: int
    level: int
    isolation_name: str
    notes: list[str]
    seconds: float
    resident: int = 0
    weight: int = 0
    sends_hello: bool = True
    code: str = ""
    shares: bool = False


class LoadFailed(msgspec.Struct, array_like=True, frozen=True, tag=22, gc=False):
    """Zygote to host: the author's code could not be imported."""

    kind: str
    message: str
    traceback: str


class Fork(msgspec.Struct, array_like=True, frozen=True, tag=23, gc=False):
    """Host to zygote: fork an instance; its socket, stdout and stderr ride along as descriptors.

    Attributes:
        instance: Its name.
        function: What it will run.
        folder: Where it will be.
        next: Where the one after it will be: that much may be made ready ahead.
        isolation: The level it asks for.
        resources: What it may use, packed: the zygote knows a plan by these bytes.
        partitions: How many partitions the streams of other apps have.
        spin: How long it looks for its next run before it sleeps, in seconds.
    """

    instance: str
    function: str
    folder: InstanceFolder
    next: InstanceFolder
    isolation: int
    resources: bytes
    partitions: dict[str, int]
    spin: float


class Forked(msgspec.Struct, array_like=True, frozen=True, tag=24, gc=False):
    """Zygote to host: it lives; a pidfd of it rides along.

    `pid` is its number in the zygote's namespace, which need not be the host's.
    """

    instance: str
    pid: int


class ForkFailed(msgspec.Struct, array_like=True, frozen=True, tag=25, gc=False):
    """Zygote to host: no process could be had."""

    instance: str
    reason: str


class Exited(msgspec.Struct, array_like=True, frozen=True, tag=26, gc=False):
    """Zygote to host: it is dead and reaped, and so is everything it left behind.

    `status` is an exit code, or minus the number of the signal that ended it.
    """

    instance: str
    status: int
    cpu: float
    memory: int


# -- on the log pipes ----------------------------------------------------------------------------


class LoggedLine(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A record as an instance writes it; `stream` is `stdout`, `stderr` or `log`."""

    invocation: str
    stream: str
    level: str
    logger: str
    message: str
    time: int


Question: TypeAlias = ReadState | ScanState | ReadSecret | Fetch | Land | Part
Answer: TypeAlias = StateRows | Scan | SecretRead | Fetched | Landed | PartAccepted
FromChild: TypeAlias = Hello | Done | Ask | Acted | Skipped | Extend
ToChild: TypeAlias = RunMessage | Answered | Suspend | Stop | Partitions
FromZygote: TypeAlias = Needs | Loaded | LoadFailed | Forked | ForkFailed | Exited
ToZygote: TypeAlias = Load | Provided | Fork
Message: TypeAlias = FromChild | ToChild | FromZygote | ToZygote

_encode = msgspec.msgpack.Encoder().encode
_to_resources: msgspec.msgpack.Decoder[Resources] = msgspec.msgpack.Decoder(Resources)
_from_child: msgspec.msgpack.Decoder[FromChild] = msgspec.msgpack.Decoder(FromChild)
_to_child: msgspec.msgpack.Decoder[ToChild] = msgspec.msgpack.Decoder(ToChild)
_from_zygote: msgspec.msgpack.Decoder[FromZygote] = msgspec.msgpack.Decoder(FromZygote)
_to_zygote: msgspec.msgpack.Decoder[ToZygote] = msgspec.msgpack.Decoder(ToZygote)


def encode(nonce: int, message: Message) -> bytes:
    """A whole frame.

    Raises:
        ValueError: The message is larger than any frame may be.
    """
    body = _encode(message)
    if len(body) > MAX_FRAME_BYTES:
        raise ValueError(
            f"a {type(message).__name__} of {len(body)} bytes is larger than the "
            f"{MAX_FRAME_BYTES} bytes a frame may have; use smaller batches or values"
        )
    return HEAD.pack(len(body), zlib.crc32(body, nonce & MASK), nonce) + body


def pack_resources(resources: Resources) -> bytes:
    """As a `Fork` carries them."""
    return _encode(resources)


def unpack_resources(packed: bytes) -> Resources:
    """Open what `pack_resources` made."""
    return _to_resources.decode(packed)


def from_child(body: bytes) -> FromChild | ProtocolError:
    """Open what an instance said."""
    try:
        return _from_child.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        return ProtocolError(f"not a message of an instance: {error}")


def to_child(body: bytes) -> ToChild | ProtocolError:
    """Open what the host said to an instance."""
    try:
        return _to_child.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        return ProtocolError(f"not a message to an instance: {error}")


def from_zygote(body: bytes) -> FromZygote | ProtocolError:
    """Open what a zygote said."""
    try:
        return _from_zygote.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        return ProtocolError(f"not a message of a zygote: {error}")


def to_zygote(body: bytes) -> ToZygote | ProtocolError:
    """Open what the host said to a zygote."""
    try:
        return _to_zygote.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        return ProtocolError(f"not a message to a zygote: {error}")
