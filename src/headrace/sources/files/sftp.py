"""Files of a folder on an SFTP server: every regular file, by name, with its version.

One connection is kept from look to look; after a failure the next look connects again. The server must
be known, and lets us in by a key.
"""

from __future__ import annotations

from fnmatch import translate
from re import compile as compile_pattern
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from headrace.environment.clock import Clock
from headrace.model.errors import Misuse, Unavailable
from headrace.model.triggers.files import MAX_FILES, Sftp
from headrace.sources.files.folder import FileVersion

LOOK_TIMEOUT_S: Final = 60.0
PORT: Final = 22


class SftpFolder:
    """The folder of one trigger, looked at again and again.

    Attributes:
        folders, closed: Of no meaning here; the folder itself, and nothing.
    """

    def __init__(self, trigger: Sftp, clock: Clock) -> None:
        """Prepare the folder; nothing is connected yet.

        Raises:
            Misuse: asyncssh is not installed.
        """
        self.folders = {""}
        self.closed = set[str]()
        self._trigger = trigger
        self._clock = clock
        self._matches = compile_pattern(translate(trigger.glob)).fullmatch
        self._connection: Any = None
        self._client: Any = None
        try:
            import asyncssh
        except ImportError as error:
            raise Misuse("`Sftp(...)` needs asyncssh; install `headrace[sftp]`") from error
        self._ssh = asyncssh

    def includes(self, name: str) -> bool:
        """Return True where the trigger means the file, by its name."""
        return self._matches(name) is not None

    async def look(self) -> dict[str, FileVersion]:
        """Every file that is meant, by name.

        Raises:
            Unavailable: The server cannot be reached, or the folder not read, now.
            Misuse: It holds more files than can be watched, or our key is none.
        """
        try:
            # A server that accepts and never answers would stop the source without an error.
            return await self._clock.timeout(self._listed(), LOOK_TIMEOUT_S)
        except (self._ssh.Error, OSError, TimeoutError) as error:
            # After any error: the state of the protocol is unknown, and the next look must start
            # afresh.
            await self.close()
            why = str(error) or type(error).__name__
            raise Unavailable(f"`{self._trigger.url}` cannot be read: {why}") from error

    async def _listed(self) -> dict[str, FileVersion]:
        if self._client is None:
            await self._connect()
        found: dict[str, FileVersion] = {}
        folder = unquote(urlsplit(self._trigger.url).path)
        async for each in self._client.scandir(folder):
            name, about = str(each.filename), each.attrs
            if about.type == self._ssh.FILEXFER_TYPE_REGULAR and self.includes(name):
                # SFTP has whole seconds and no inode: two writes of one size within a second look
                # alike.
                found[name] = FileVersion(about.size or 0, (about.mtime or 0) * 1_000_000_000, "")
            if len(found) > MAX_FILES:
                raise Misuse(
                    f"`{self._trigger.url}` holds over {MAX_FILES:,} files that match; narrow "
                    "`glob=`, or move what is done elsewhere"
                )
        return found

    async def _connect(self) -> None:
        parts = urlsplit(self._trigger.url)
        settings: dict[str, Any] = {"port": parts.port or PORT}
        if parts.username:
            settings["username"] = unquote(parts.username)
        if self._trigger.private_key is not None:
            settings["client_keys"] = [self._trigger.private_key]
        if self._trigger.known_hosts is not None:
            settings["known_hosts"] = self._trigger.known_hosts
        try:
            self._connection = await self._ssh.connect(parts.hostname, **settings)
        except self._ssh.KeyImportError as error:
            raise Misuse(
                f"`{self._trigger.url}`: {self._trigger.private_key or 'a key'} is not a private key that can "
                f"be read without a passphrase: {error}"
            ) from error
        # One name that is not UTF-8 must not hide the others.
        self._client = await self._connection.start_sftp_client(path_errors="surrogateescape")

    async def close(self) -> None:
        """Hang up; a later look connects again."""
        connection, self._connection, self._client = self._connection, None, None
        if connection is not None:
            # Not `close`, which waits for the server to answer.
            connection.abort()
            await connection.wait_closed()
