"""Outcomes of invocations. What user code raised is a value here, never an exception.

Every kind of outcome has `usage`, `failure`, `returned`, `whole` and `only_published`, so a package
has to distinguish the kinds in one function at most.
"""

from __future__ import annotations

from typing import ClassVar, TypeAlias, final

import msgspec

from headrace.model.record import Append


@final
class Cause(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Cause of a failure.

    Attributes:
        kind: The exception's class name, or `Crashed`, `TimedOut`, `OutOfMemory`, ...
        message: Its text.
        traceback: The author's frames, capped; "" where there are none.
        retryable: False where the code itself said that trying again is useless.
        delay: Seconds to the next attempt where the failure says so; below 0 the function's
            `retry` says.
        classes: The dotted names of the exception's class and of all it is derived from; of an
            exception group, those of each member. Empty where there was no exception.
    """

    kind: str
    message: str
    traceback: str = ""
    retryable: bool = True
    delay: float = -1.0
    classes: tuple[tuple[str, ...], ...] = ()


BEHIND = "headrace.Behind"
"""The kind of a cause that is not a fault: the event was not run, because one before it failed."""


class Failure(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The event at `index` of the batch (0 to size - 1) failed, and why."""

    index: int
    cause: Cause


class Range(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The rows of a store under a prefix as they were seen, to be found so at the commit.

    Attributes:
        after: The key behind which it began; "" for the first of the prefix.
        last: The last key that was looked at; None where all to the end of the prefix were.
        count: How many rows, those that have expired and are not swept yet among them.
        digest: Of their keys and versions.
    """

    after: str
    last: str | None
    count: int
    digest: bytes


class Scanned(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Key, version and value of what a store holds under a prefix, ascending; and all that was looked at."""

    rows: list[tuple[str, int, bytes]]
    seen: Range


class StateRead(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A key of a store and the version that was seen (0: absent).

    With `seen`, it is the keys that start with `key` that were read, in one scan. The store is named as
    the function may name it (`stores.may_use`): "" is its own.
    """

    key: str
    version: int
    seen: Range | None = None
    store: str = ""


class StateWrite(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A key's new value (None deletes it), when it expires (µs since the epoch, 0: never), and its store."""

    key: str
    value: bytes | None
    expires: int = 0
    store: str = ""


class Usage(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Cost of a run: wall and processor seconds, and the instance's peak resident bytes."""

    wall: float = 0.0
    cpu: float = 0.0
    memory: int = 0
    cold: bool = False
    instance: str = ""


class Returned(msgspec.Struct, array_like=True, frozen=True, tag=True, gc=False):
    """The instance came back. Effects hold only what belongs to events that are done.

    Attributes:
        failures: Events that failed, by index, ascending; the handler may have gone on after them.
        untouched: The first index the handler did not come to, or -1 where it saw all: events
            from there on are neither done nor failed.
        error: Set where the handler raised without naming an event: every event that is not in
            `done` counts as failed together.
        done: With `error`, the indices marked done before it; their effects are kept.
        appends: What was published.
        reads: State versions the effects rely on.
        writes: State changes.
        result: What a `call` answered.
        usage: What it cost.
    """

    failures: tuple[Failure, ...] = ()
    untouched: int = -1
    error: Cause | None = None
    done: tuple[int, ...] = ()
    appends: tuple[Append, ...] = ()
    reads: tuple[StateRead, ...] = ()
    writes: tuple[StateWrite, ...] = ()
    result: bytes | None = None
    usage: Usage = Usage()

    @property
    def failure(self) -> Cause | None:
        """The cause that failed a run which is one whole, such as a call; None where it succeeded."""
        if self.error is not None:
            return self.error
        return self.failures[0].cause if self.failures else None

    @property
    def returned(self) -> Returned:
        """This outcome; None where no instance came back."""
        return self

    @property
    def whole(self) -> Returned | Cause:
        """Result of a run which is one whole: its effects, or the cause that failed it."""
        return self.failure or self

    @property
    def only_published(self) -> bool:
        """True where every event succeeded and the run did nothing but publish."""
        return (
            self.error is None
            and not self.failures
            and self.untouched < 0
            and not (self.reads or self.writes)
        )


class Crashed(msgspec.Struct, array_like=True, frozen=True, tag=True, gc=False):
    """The instance died, or broke the protocol, and was replaced. No effects.

    `blameless` means the platform itself took the instance away (an operator's kill, a drain
    that gave up waiting) before the function could be at fault: no attempt is spent.
    """

    cause: Cause
    usage: Usage = Usage()
    blameless: bool = False

    returned: ClassVar[None] = None
    only_published: ClassVar[bool] = False

    @property
    def failure(self) -> Cause:
        """The cause that failed a run which is one whole."""
        return self.cause

    @property
    def whole(self) -> Cause:
        """Result of a run which is one whole: the cause that failed it."""
        return self.cause


class TimedOut(msgspec.Struct, array_like=True, frozen=True, tag=True, gc=False):
    """The invocation overran its timeout and its instance was killed. No effects."""

    cause: Cause
    usage: Usage = Usage()

    returned: ClassVar[None] = None
    only_published: ClassVar[bool] = False

    @property
    def failure(self) -> Cause:
        """The cause that failed a run which is one whole."""
        return self.cause

    @property
    def whole(self) -> Cause:
        """Result of a run which is one whole: the cause that failed it."""
        return self.cause


Outcome: TypeAlias = Returned | Crashed | TimedOut
