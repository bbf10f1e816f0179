"""Objects under a prefix of an object store: every object, by path, with its version.

The store is reached through obstore, which knows S3, Google Cloud Storage, Azure and what speaks
their protocols. Its errors become ours here.
"""

from __future__ import annotations

from fnmatch import translate
from re import compile as compile_pattern
from typing import Any, Final

from headrace.model.errors import Misuse, Unavailable
from headrace.model.triggers.files import MAX_FILES, Objects
from headrace.sources.files.folder import FileVersion

CONNECTION: Final = frozenset(
    ["allow_http", "allow_invalid_certificates", "connect_timeout", "proxy_url", "timeout"]
)
"""Options that are about the connection and not about the store."""
_PAGE: Final = 1_000


class ObjectStore:
    """The prefix of one trigger, listed again and again.

    Attributes:
        folders, closed: Of no meaning here; the prefix itself, and nothing.
    """

    def __init__(self, trigger: Objects) -> None:
        """Prepare the store; no request is sent yet.

        Raises:
            Misuse: There is no such kind of store, or obstore is not installed.
        """
        self.folders = {""}
        self.closed = set[str]()
        self._trigger = trigger
        self._matches = compile_pattern(translate(trigger.glob)).fullmatch
        try:
            import obstore
            from obstore.exceptions import BaseError
            from obstore.store import from_url
        except ImportError as error:
            raise Misuse(
                f"`Objects({trigger.url!r})` needs obstore; install `headrace[objects]`"
            ) from error
        self._list = obstore.list
        self._error = BaseError
        connection: Any = {k: v for k, v in trigger.options.items() if k in CONNECTION}
        options: Any = {k: v for k, v in trigger.options.items() if k not in CONNECTION}
        try:
            self._store = from_url(
                trigger.url,
                config=options or None,
                client_options=connection or None,
                # A source that cannot look is started again after a pause; no need to insist here.
                retry_config={"max_retries": 1},
            )
        except (BaseError, ValueError, TypeError) as error:
            raise self._refusal(error) from error
        except BaseException as error:
            # A panic of Rust derives from BaseException, and has no class to import.
            if type(error).__name__ != "PanicException":
                raise
            # The library's way of saying that it does not know an option.
            raise self._refusal(error) from error

    def _refusal(self, error: BaseException) -> Misuse:
        return Misuse(f"`Objects({self._trigger.url!r})` cannot work: {_first_line(error)}")

    def includes(self, name: str) -> bool:
        """Return True where the trigger means the object, by its path beneath the prefix."""
        return self._matches(name) is not None

    async def look(self) -> dict[str, FileVersion]:
        """Every object that is meant, by its path beneath the prefix.

        Raises:
            Unavailable: The store cannot be listed now.
            Misuse: It holds more objects than can be watched.
        """
        found: dict[str, FileVersion] = {}
        try:
            # Page by page: a prefix may hold millions of objects.
            async for page in self._list(self._store, chunk_size=_PAGE):
                for each in page:
                    if self.includes(each["path"]):
                        # Rounded to microseconds: a float has no exact nanoseconds for a date of
                        # today.
                        moment = round(each["last_modified"].timestamp() * 1_000_000) * 1_000
                        found[each["path"]] = FileVersion(each["size"], moment, each["e_tag"] or "")
                if len(found) > MAX_FILES:
                    raise Misuse(
                        f"`{self._trigger.url}` holds over {MAX_FILES:,} objects that match; "
                        "narrow the prefix or `glob=`"
                    )
        except self._error as error:
            why = _first_line(error)
            if "invalid path" in why:
                why += "; the library reads no such name: rename the object, or narrow the prefix"
            raise Unavailable(f"`{self._trigger.url}` cannot be listed: {why}") from error
        return found

    async def close(self) -> None:
        """The library keeps its own connections."""


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
