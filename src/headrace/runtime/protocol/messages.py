"""The messages between host, zygotes and instances, as frames carry them. Pure.

Each has a tag, so that a message that an instance may not send is refused. Bytes from a child are
untrusted: an invalid body returns a `ProtocolError` value, after which the caller closes the
channel and kills the child.
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
"""Starts a record on a log pipe; plain lines have none."""

EXIT_HOOK = 70
"""An instance's exit code after a hook of the author failed."""
EXIT_MEMORY = 71
"""An instance's exit code when it ran out of memory outside the handler."""
EXIT_NOT_STARTED = 231
"""An instance's exit code when it could not be set up, such as without space for its folder."""
EXIT_CHANNEL = 72
"""An instance's exit code when its channel broke."""


# -- between host and instance ------------------------------------------------------------------


class RunMessage(msgspec.Struct, array_like=True, frozen=True, tag=1, gc=False):
    """Host to child: run this. All messages about the run carry the frame's nonce.

    Attributes:
        invocation: What to run.
        ahead: It was sent while another run was active: it may start only once it is claimed (`runtime.prefetch`),
            and is skipped if the host has taken it back.
    """

    invocation: Invocation
    ahead: bool = False


class Done(msgspec.Struct, array_like=True, frozen=True, tag=2, gc=False):
    """Child to host: the result of a run."""

    returned: Returned


class Hello(msgspec.Struct, array_like=True, frozen=True, tag=3, gc=False):
    """Child to host: the start hooks have completed and runs are accepted; or `refusal` says why not."""

    seconds: float
    refusal: Cause | None = None


class ReadState(msgspec.Struct, array_like=True, frozen=True, tag=4, gc=False):
    """Child to host: version and value of these keys of a store; see `model.stores`."""

    keys: list[str]
    store: str = ""


class ScanState(msgspec.Struct, array_like=True, frozen=True, tag=5, gc=False):
    """Child to host: the keys of a store under a prefix after the key `begin`, ascending."""

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
        final: Whether repeating the question would fail in the same way.
    """

    kind: str
    message: str
    final: bool = False


class ReadSecret(msgspec.Struct, array_like=True, frozen=True, tag=32, gc=False):
    """Child to host: the value of this secret; the only question that needs no run."""

    name: str


class SecretRead(msgspec.Struct, array_like=True, frozen=True, tag=33, gc=False):
    """Host to child: the answer to `ReadSecret`."""

    value: str

    def __repr__(self) -> str:
        return "SecretRead(...)"


class Ask(msgspec.Struct, array_like=True, frozen=True, tag=28, gc=False):
    """Child to host: a question of the current run; its answer has the same number."""

    number: int
    question: ReadState | ScanState | ReadSecret | Fetch | Land | Part


class Answered(msgspec.Struct, array_like=True, frozen=True, tag=29, gc=False):
    """Host to child: the answer to the question of that number."""

    number: int
    answer: StateRows | Scan | SecretRead | Fetched | Landed | PartAccepted | Denied


class Suspend(msgspec.Struct, array_like=True, frozen=True, tag=9, gc=False):
    """Host to child: run the suspend hooks; a stop signal follows the answer.

    The next run resumes the process, and the resume hooks run before it.
    """


class Stop(msgspec.Struct, array_like=True, frozen=True, tag=11, gc=False):
    """Host to child: run the stop hooks and exit."""


class Acted(msgspec.Struct, array_like=True, frozen=True, tag=12, gc=False):
    """Child to host: the hooks of `Suspend` have run; `cause` where one failed."""

    cause: Cause | None = None


class Skipped(msgspec.Struct, array_like=True, frozen=True, tag=27, gc=False):
    """Child to host: a run that was sent ahead and taken back was skipped."""


class Extend(msgspec.Struct, array_like=True, frozen=True, tag=14, gc=False):
    """Child to host: the current run may take `seconds` from now."""

    seconds: float


class Fetch(msgspec.Struct, array_like=True, frozen=True, tag=15, gc=False):
    """Child to host: the next events of the current run, up to `events`."""

    events: int


class Fetched(msgspec.Struct, array_like=True, frozen=True, tag=16, gc=False):
    """Host to child: the answer to `Fetch`; `lag` events are left."""

    chunks: list[Chunk]
    lag: int


class Land(msgspec.Struct, array_like=True, frozen=True, tag=17, gc=False):
    """Child to host: commit the events fetched, and their effects, since the last commit."""

    returned: Returned


class Landed(msgspec.Struct, array_like=True, frozen=True, tag=18, gc=False):
    """Host to child: the commit is durable."""


class Part(msgspec.Struct, array_like=True, frozen=True, tag=19, gc=False):
    """Child to host: the next part of a streamed answer; only the first may have a `head`."""

    body: bytes
    head: WireReply | None = None


class PartAccepted(msgspec.Struct, array_like=True, frozen=True, tag=10, gc=False):
    """Host to child: the next part can be sent."""


class Partitions(msgspec.Struct, array_like=True, frozen=True, tag=13, gc=False):
    """Host to child: how many partitions the streams of other apps have."""

    counts: dict[str, int]


# -- between host and zygote --------------------------------------------------------------------


class InstanceFolder(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Folder of an instance: its name in its zygote's scratch folder, and its uid (0: none)."""

    name: str
    uid: int


class Load(msgspec.Struct, array_like=True, frozen=True, tag=20, gc=False):
    """Host to zygote: import this, then wait for forks; the first message.

    `uid` is the first id of this zygote's range, 0 if the host has none; `next` is the folder of
    the first instance. `files` is the folder of all apps' files, `group` the group that instances
    share there, used where there is a uid.
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
    """Zygote to host, during the import: the app of this name requests its settings and these variables."""

    app: str
    variables: list[str]


class Provided(msgspec.Struct, array_like=True, frozen=True, tag=31, gc=False):
    """Host to zygote: the answer to `Needs`."""

    provision: Provision


class Loaded(msgspec.Struct, array_like=True, frozen=True, tag=21, gc=False):
    """Zygote to host: the app is imported, the sandbox is in force.

    Attributes:
        spec: What was declared.
        size: The zygote's address space in bytes, on top of which instances get theirs.
        level: The highest isolation level that its instances can reach.
        isolation_name: A description of the zygote's isolation.
        notes: What was requested and is not available, and why.
        seconds: How long the import took.
        resident: Its resident memory in bytes, shared file pages included.
        weight: Its private memory in bytes, which instances share until they write to it.
        sends_hello: Whether its instances send `Hello` after their start hooks; others accept runs
            from the fork on.
        code: A hash of the imported code, which is a part of the spec's version.
        shares: Its instances have separate uids, and share the app's files by their group.
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
    """Host to zygote: fork an instance; its socket, stdout and stderr travel as descriptors.

    Attributes:
        instance: Its name.
        function: The function that it will run.
        folder: Its scratch folder.
        next: The folder of the instance after it, which may be prepared in advance.
        isolation: Its requested level.
        resources: Its limits, packed: the zygote caches plans by these bytes.
        partitions: How many partitions the streams of other apps have.
        spin: How long it polls for its next run before it sleeps, in seconds.
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
    """Zygote to host: the instance was forked; its pidfd travels along.

    `pid` is its number in the zygote's namespace, which may differ from the host's.
    """

    instance: str
    pid: int


class ForkFailed(msgspec.Struct, array_like=True, frozen=True, tag=25, gc=False):
    """Zygote to host: no process could be forked."""

    instance: str
    reason: str


class Exited(msgspec.Struct, array_like=True, frozen=True, tag=26, gc=False):
    """Zygote to host: the instance is dead and reaped, and so are the processes it left.

    `status` is an exit code, or minus the number of the signal that ended it.
    """

    instance: str
    status: int
    cpu: float
    memory: int


# -- on the log pipes ----------------------------------------------------------------------------


class LoggedLine(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A log record as an instance writes it; `stream` is `stdout`, `stderr` or `log`."""

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
    """Encode a message as a whole frame.

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
    """Encode resources as a `Fork` carries them."""
    return _encode(resources)


def unpack_resources(packed: bytes) -> Resources:
    """Decode the result of `pack_resources`."""
    return _to_resources.decode(packed)


def from_child(body: bytes) -> FromChild | ProtocolError:
    """Decode a message of an instance."""
    try:
        return _from_child.decode(body)
    # Deeply nested bytes exhaust the decoder's recursion limit instead of failing to decode.
    except (msgspec.DecodeError, RecursionError) as error:
        return ProtocolError(f"not a message of an instance: {error}")


def to_child(body: bytes) -> ToChild | ProtocolError:
    """Decode a message of the host to an instance."""
    try:
        return _to_child.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        return ProtocolError(f"not a message to an instance: {error}")


def from_zygote(body: bytes) -> FromZygote | ProtocolError:
    """Decode a message of a zygote."""
    try:
        return _from_zygote.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        return ProtocolError(f"not a message of a zygote: {error}")


def to_zygote(body: bytes) -> ToZygote | ProtocolError:
    """Decode a message of the host to a zygote."""
    try:
        return _to_zygote.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        return ProtocolError(f"not a message to a zygote: {error}")
