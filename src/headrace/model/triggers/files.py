"""Triggers that watch: `Files` (a folder), `Objects` (a store), `Sftp`, `Silence` and `Missing` (streams), `Custom` (anything).

They are values; what serves them stands in `triggers/`. Bad settings are refused when written.
"""

from __future__ import annotations

from typing import Any, Final, Literal, get_args
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import force_setattr

from headrace.model.durations import MaybeSeconds, Seconds, keep_seconds
from headrace.model.errors import Misuse
from headrace.model.policy_struct import PolicyStruct, default
from headrace.model.triggers.field_types import FolderPath, StreamName, keep_name, keep_path

FileEvent = Literal["created", "modified", "deleted"]
SliceBy = Literal["lines", "csv"]

MAX_WAIT_S: Final = 366 * 86_400.0
MAX_FILES: Final = 100_000


class Files(PolicyStruct, frozen=True, tag="files"):
    """Files come, change or go in a folder. Exactly one event for each version of a file.

    Attributes:
        path: The folder, as text or a `pathlib` path; a relative one counts from the folder where the node was
            started, not from the app's; `headrace validate` names one that is not there. Nothing outside of it is looked at, and no symbolic link is followed.
        glob: A glob that the file's name must match; with `recursive`, its path.
        events: Which of `created`, `modified`, `deleted`.
        settle: How long a file must have been unchanged before it is an event.
        poll: The time between two looks. None lets the kernel say when to look (inotify), and looks
            every 60 s all the same; where there is no inotify, every second.
        recursive: Whether folders within are watched too.
        slices: Hand over what is in a file that came or changed, one event for each slice of whole
            records: `lines`, or records of `csv`. None hands over the file's name alone.
    """

    path: FolderPath
    glob: str = "*"
    events: tuple[FileEvent, ...] = ("created", "modified", "deleted")
    settle: Seconds = default(0.5)
    poll: MaybeSeconds = default(None)
    recursive: bool = False
    slices: SliceBy | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be watched.

        Raises:
            Misuse: Naming the setting and the fix.
        """
        keep_path(self, "path")
        what = f"Files({self.path!r})"
        path: Any = self.path
        if not isinstance(path, str) or not path or "\x00" in path:
            raise Misuse(f'`{what}`: the path is not a folder; write one such as `"inbox"`')
        _check_looks(self, what)
        keep_seconds(self, "settle", low=0, high=3_600, what=f"`settle=` of `{what}`")
        keep_seconds(self, "poll", low=0.05, high=86_400, what=f"`poll=` of `{what}`")
        if self.slices is not None and self.slices not in get_args(SliceBy):
            raise Misuse(f"`{what}`: `slices={self.slices!r}`; use `lines` or `csv`")


class Objects(PolicyStruct, frozen=True, tag="objects"):
    """Objects come, change or go under a prefix of an object store. One event for each version.

    Attributes:
        url: The store and prefix: `s3://bucket/prefix`, `gs://`, `az://`, `file:///folder`.
            Credentials come from the node's environment, as the store's own tools read them.
        glob: A glob that the object's path beneath the prefix must match; `*` matches `/` too.
        events: Which of `created`, `modified`, `deleted`.
        poll: The time between two listings.
        options: Settings of the store, such as `{"aws_endpoint": "https://..."}`. No secrets: they
            are shown with the function.
    """

    url: str
    glob: str = "*"
    events: tuple[FileEvent, ...] = ("created", "modified", "deleted")
    poll: Seconds = default(30.0)
    options: dict[str, str] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what cannot be watched.

        Raises:
            Misuse: Naming the setting and the fix.
        """
        what = f"Objects({self.url!r})"
        url: Any = self.url
        if not isinstance(url, str) or "://" not in url or "@" in url.partition("://")[2]:
            raise Misuse(f'`{what}`: write the store as "s3://bucket/prefix", without credentials')
        _check_looks(self, what)
        keep_seconds(self, "poll", low=0.05, high=86_400, what=f"`poll=` of `{what}`")


class Sftp(PolicyStruct, frozen=True, tag="sftp"):
    """Files come, change or go in a folder of an SFTP server. One event for each version.

    Attributes:
        url: `sftp://user@host:22/folder`, without a password: keys are used.
        glob: A glob that the file's name must match.
        events: Which of `created`, `modified`, `deleted`.
        settle: How long a file must have stood still, over two looks at least: uploads grow.
        poll: The time between two looks.
        private_key: The private key's file on the node; None for the keys and the agent that `ssh` uses.
        known_hosts: The file of server keys on the node; None for the one that `ssh` uses. A server
            that is not in it is not talked to.
    """

    url: str
    glob: str = "*"
    events: tuple[FileEvent, ...] = ("created", "modified", "deleted")
    settle: Seconds = default(2.0)
    poll: Seconds = default(30.0)
    private_key: str | None = None
    known_hosts: str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be watched.

        Raises:
            Misuse: Naming the setting and the fix.
        """
        what = "Sftp(...)"
        url: Any = self.url
        parts = urlsplit(url) if isinstance(url, str) else None
        if parts is None or parts.scheme != "sftp" or not parts.hostname or not parts.path:
            raise Misuse(f'`{what}`: write the folder as "sftp://user@host:22/folder"')
        if parts.password is not None:
            raise Misuse(
                f"`{what}`: take the password out of the address; use a key (`private_key=`)"
            )
        _check_looks(self, what)
        keep_seconds(self, "settle", low=0, high=3_600, what=f"`settle=` of `{what}`")
        keep_seconds(self, "poll", low=0.05, high=86_400, what=f"`poll=` of `{what}`")


class Silence(PolicyStruct, frozen=True, tag="silence"):
    """A stream has been silent for so long. One event; the next only after there was activity.

    Attributes:
        stream: The stream, or its name.
        after: The time, such as `"10m"`, since the last record was appended.
        per_key: Whether each key's own silence counts; a key counts from its first record on.
    """

    stream: StreamName
    after: Seconds
    per_key: bool = False

    def __post_init__(self) -> None:
        """Keep the time as seconds.

        Raises:
            Misuse: Naming the setting and the fix.
        """
        keep_name(self, "stream")
        what = f"Silence({self.stream!r})"
        _check_stream(self.stream, what)
        keep_seconds(self, "after", low=0.1, high=MAX_WAIT_S, what=f"`after=` of `{what}`")

    @property
    def seconds(self) -> float:
        """The time without a record."""
        return self.after


class Missing(PolicyStruct, frozen=True, tag="missing"):
    """A join was left incomplete: a record came on one stream, none of its key on the other.

    Attributes:
        left: The stream whose records expect a partner, or its name.
        right: The stream, or its name, where the partner should come, before or after it.
        within: The time, such as `"15m"`, between the two at most.
    """

    left: StreamName
    right: StreamName
    within: Seconds

    def __post_init__(self) -> None:
        """Keep the time as seconds.

        Raises:
            Misuse: Naming the setting and the fix.
        """
        keep_name(self, "left", "right")
        what = f"Missing({self.left!r}, {self.right!r})"
        _check_stream(self.left, what)
        _check_stream(self.right, what)
        if self.left == self.right:
            raise Misuse(f"`{what}` joins a stream with itself; name two")
        keep_seconds(self, "within", low=0.1, high=MAX_WAIT_S, what=f"`within=` of `{what}`")

    @property
    def seconds(self) -> float:
        """The time between the two at most."""
        return self.within


class Custom(msgspec.Struct, frozen=True, tag="custom"):
    """The author's own generator says so; made by `@app.source`, not by hand.

    Attributes:
        function: The full name of the function that runs the generator.
        every: Seconds between two runs, when the last one had nothing more to say.
        turn_events: Events taken from one run at most.
        turn_time: Seconds one run may go on before what it said is appended.
        timeout: Seconds after which a run that says nothing is killed.
    """

    function: str
    every: float = 1.0
    turn_events: int = 1_000
    turn_time: float = 5.0
    timeout: float = 60.0


class Ends(msgspec.Struct, frozen=True, tag="window"):
    """Windows of the function's own have closed; made by `@app.window`, not by hand.

    Attributes:
        partitions: How many the stream of closed windows has: as many as the stream that is read.
        idle: The time without an event after which a partition's open windows close; None: never.
        size: Seconds that one window is long; None for a session, which has no fixed length.
        late: The stream that takes events whose windows have closed; "" where they are dropped.
    """

    partitions: int = 1
    idle: MaybeSeconds = default(None)
    size: MaybeSeconds = default(None)
    late: str = ""


Watch = Files | Objects | Sftp | Silence | Missing | Custom


def _check_looks(trigger: Files | Objects | Sftp, what: str) -> None:
    """Check the glob; keep the events as a tuple."""
    glob: Any = trigger.glob
    events: Any = trigger.events
    if not isinstance(glob, str) or not glob:
        raise Misuse(f'`{what}`: `glob={glob!r}` is not a glob; write `"*.csv"`')
    given = (events,) if isinstance(events, str) else tuple(events)
    known = get_args(FileEvent)
    if not given or set(given) - set(known):
        raise Misuse(f"`{what}`: `events={events!r}`; use some of {', '.join(known)}")
    force_setattr(trigger, "events", given)


def _check_stream(stream: object, what: str) -> None:
    if not isinstance(stream, str) or not stream:
        raise Misuse(
            f'`{what}`: {stream!r} is not a stream; write the stream itself, or its name such as `"orders"`'
        )
