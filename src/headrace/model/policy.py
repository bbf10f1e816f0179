"""Every limit, retry rule and window, with its default: what may be asked of the platform.

Policies are values an author gives to a function; the same names stand in `headrace.toml`.
Durations are seconds, texts such as `"5m"`, or `timedelta`s; sizes are bytes, or texts such as `"64MiB"`. A value that cannot work is refused when it is written.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from headrace.model.durations import MaybeSeconds, Seconds, keep_seconds
from headrace.model.errors import Misuse
from headrace.model.exception_names import ExceptionNames, keep_exception_names
from headrace.model.policy_struct import PolicyStruct, default
from headrace.model.sizes import Bytes, MaybeBytes, keep_bytes, written_size

EventOrder = Literal["partition", "key", "none"]
Commit = Literal["after", "before"]
Start = Literal["earliest", "latest"]

MAX_BATCH = 10_000
MAX_EVENT_BYTES = 1 << 20
MAX_BATCH_BYTES = 8 << 20
MAX_FRAME_BYTES = 64 << 20
CONVOY_SPARE_S = 0.01
"""Seconds that a group of coalesced batches is given beyond the timeout of its last batch, which begins by half of them."""
MAX_HOPS = 64
MAX_TRACEBACK = 16_384
MAX_KEY_BYTES = 1_024
MAX_HEADERS = 64
MAX_HEADER_BYTES = 16_384
MAX_NAME = 200
MAX_PARTITIONS = 100_000
MAX_STATE_BYTES = 4 << 20
MAX_ASKED_KEYS = 10_000
"""Keys of state in one question of a handler's."""
MAX_ANSWER_BYTES = 32 << 20
"""Of all values of state in the answer to one question."""
MAX_UNREAD_BYTES = 1 << 20
"""Of questions and answers that an instance and its host have not finished with: beyond it, the host reads
nothing more from the instance."""
MAX_KEPT_S = 3_155_760_000
"""A hundred years."""
MAX_LIFETIME_S = 10 * 366 * 86_400
"""Of a token, in seconds: ten years."""
MAX_CHANGES_PER_GROUP = 512
MAX_QUEUED_CHANGES = 65_536
MAX_FLOW_LIMIT = 1_000_000
MAX_FLOW_SECONDS = 31_536_000
MAX_PRIORITY = 86_400
MAX_VISIBILITY = 43_200
MAX_EXTENDED_S = 43_200
"""Seconds from its beginning for which a run may put off its end, however often it asks: 12 hours."""
MAX_DELAY = 31_536_000
MAX_RECEIVES = 10_000
MAX_MESSAGES = 100
MAX_OFFERED = 256
MIN_FLEET_MEMORY = 32 << 20


def _require(holds: bool, what: str, fix: str) -> None:
    if not holds:
        raise Misuse(f"{what}; {fix}")


class Retry(PolicyStruct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Retry policy, for when a failed event is tried again: exponential backoff with full jitter.

    The delay before attempt n + 1 is drawn evenly from
    `[0, min(max_delay, initial_delay * 2 ** (n - 1))]`
    (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).

    Attributes:
        attempts: How often an event is tried at most, the first time included; 1 to 10,000.
        initial_delay: The first delay's upper bound.
        max_delay: No delay is longer.
        max_event_age: Give up once the event is older than this; None means never.
        jitter: Whether delays are drawn at random below their bound (else they are the bound).
        retry_on: The only exceptions after which an event is tried again: a class, or several
            classes, dotted names (`"requests.Timeout"`) and names of built-in ones; subclasses
            count. Empty means all. Of an exception group, every member must be one of them.
        give_up_on: Exceptions after which an event is never tried again, named likewise. Of an
            exception group, one member is enough.
    """

    attempts: int = 5
    initial_delay: Seconds = default(0.2)
    max_delay: Seconds = default(60.0)
    max_event_age: MaybeSeconds = default(None)
    jitter: bool = True
    retry_on: ExceptionNames = default(())
    give_up_on: ExceptionNames = default(())

    def __post_init__(self) -> None:
        _require(
            1 <= self.attempts <= 10_000,
            f"`Retry(attempts={self.attempts})` is out of range",
            "use 1 to 10,000",
        )
        keep_seconds(self, "initial_delay", low=0, high=MAX_KEPT_S)
        keep_seconds(self, "max_delay", low=0, high=MAX_KEPT_S)
        keep_seconds(self, "max_event_age", low=0.001, high=MAX_KEPT_S)
        _require(
            self.initial_delay <= self.max_delay,
            f"`Retry(initial_delay={self.initial_delay}, max_delay={self.max_delay})` cannot hold",
            "use 0 <= initial_delay <= max_delay",
        )
        keep_exception_names(self, "retry_on")
        keep_exception_names(self, "give_up_on")


class DeadLetter(PolicyStruct, frozen=True, kw_only=True, tag="dead-letter"):
    """Give the event up: keep its bytes, position, cause and attempts, and let the next one pass."""


class ParkKey(PolicyStruct, frozen=True, kw_only=True, tag="park-key"):
    """Let the failing key wait, its later events in order behind it; every other key flows on."""


class ParkPartition(PolicyStruct, frozen=True, kw_only=True, tag="park-partition"):
    """Stop the partition at the failing event until someone redrives or discards it."""


class Discard(PolicyStruct, frozen=True, kw_only=True, tag="discard"):
    """Drop the event; asked for by name because it loses data."""


OnFailure = DeadLetter | ParkKey | ParkPartition | Discard


class Breaker(PolicyStruct, frozen=True, kw_only=True):
    """Stop calling a function that keeps failing, and try it again after a pause.

    Attributes:
        failures: This many failed invocations in a row open the breaker.
        pause: How long the breaker stays open before one trial invocation.
    """

    failures: int = 20
    pause: Seconds = default(10.0)

    def __post_init__(self) -> None:
        _require(
            self.failures >= 1,
            f"`Breaker(failures={self.failures})` never lets anything run",
            "use 1 or more",
        )
        keep_seconds(self, "pause", low=0.001, high=MAX_KEPT_S)


class Scaling(PolicyStruct, frozen=True, kw_only=True):
    """Limits of how many instances a function may have.

    Attributes:
        min: Kept even when idle.
        max: Never more at once.
        keep_warm: How long an idle instance stays runnable before it hibernates.
        keep_hibernating: How long a hibernating instance is kept before it is evicted.
        max_instance_age: After which time an instance is replaced; None means never.
        max_invocations: Invocations after which an instance is replaced; None means never.
        spare: Keep one child of the app's process forked ahead of need, for whichever of the
            app's functions needs one next: starts are quicker, for a few MiB and a process.
    """

    min: int = 0
    max: int = 8
    keep_warm: Seconds = default(60.0)
    keep_hibernating: Seconds = default(600.0)
    max_instance_age: MaybeSeconds = default(None)
    max_invocations: int | None = None
    spare: bool = False

    def __post_init__(self) -> None:
        _require(
            0 <= self.min <= self.max,
            f"`Scaling(min={self.min}, max={self.max})` cannot hold",
            "use 0 <= min <= max",
        )
        _require(
            self.max >= 1,
            "`Scaling(max=0)` would never run",
            "use 1 or more, or remove the function",
        )
        keep_seconds(self, "keep_warm", low=0, high=MAX_KEPT_S)
        keep_seconds(self, "keep_hibernating", low=0, high=MAX_KEPT_S)
        keep_seconds(self, "max_instance_age", low=0.001, high=MAX_KEPT_S)


class Resources(PolicyStruct, frozen=True, kw_only=True):
    """Limits of what one instance may use.

    Attributes:
        memory: Bytes of address space beyond what the zygote had, and of memory that it and all
            processes that come of it have together, looked at once a second; None means no limit.
        cpu: Processor time for one invocation; None means no limit.
        files: Open files.
        processes: Processes and threads.
        file_size: Bytes of the largest file it may write.
        isolation: 0 no more than every app gets (not root, no_new_privs, seccomp, namespaces),
            1 adds rlimits + uid + private scratch folder, 2 adds landlock. The highest level the machine has is used when more is
            asked for than it can give, and `headrace doctor` says so.
        network: Whether it may open network sockets.
    """

    memory: MaybeBytes = default(1 << 30)
    cpu: MaybeSeconds = default(None)
    files: int = 256
    processes: int = 64
    file_size: Bytes = default(1 << 30)
    isolation: int = 1
    network: bool = True

    def __post_init__(self) -> None:
        _require(
            self.isolation in {0, 1, 2},
            f"`Resources(isolation={self.isolation})` is unknown",
            "use 0, 1 or 2",
        )
        keep_seconds(self, "cpu", low=0.001, high=MAX_KEPT_S)
        keep_bytes(self, "memory", low=1)
        keep_bytes(self, "file_size", low=0)


class FleetLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of what the functions of one node use in all, and of how long a zygote serves.

    Attributes:
        instances: Instances at once; where there are more, idle ones go first, then runs wait.
        memory: Bytes of all of them and their zygotes, 0 for three quarters of what the machine
            or its cgroup has. Idle instances go first; then runs wait; and if those at work grow
            beyond it, the one that uses most is ended.
        zygote_forks: Forks after which a zygote is replaced by a fresh one.
        zygote_age: After which time it is.
    """

    instances: int = 256
    memory: Bytes = default(0)
    zygote_forks: int = 10_000
    zygote_age: Seconds = default(86_400.0)

    def __post_init__(self) -> None:
        _require(
            1 <= self.instances <= 10_000,
            f"`max_instances = {self.instances}` is out of range",
            "use 1 to 10,000",
        )
        keep_bytes(self, "memory", low=0, what="`max_memory`")
        _require(
            self.memory == 0 or self.memory >= MIN_FLEET_MEMORY,
            f"`max_memory = {self.memory}` is too little for one app",
            f'use "{written_size(MIN_FLEET_MEMORY)}" or more, or 0 for a share of what there is',
        )
        _require(
            1 <= self.zygote_forks <= 16_000,
            f"`zygote_forks = {self.zygote_forks}` is out of range",
            "use 1 to 16,000",
        )
        keep_seconds(self, "zygote_age", low=1, high=MAX_KEPT_S, what="`zygote_age`")
