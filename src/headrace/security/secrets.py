"""Secrets by reference: from a name in a spec to the value, read where the operator stores it.

References are `file:/run/secrets/x` or `env:NAME`. A name that is not listed is searched in the
variable `HEADRACE_SECRET_<NAME>`, among systemd's credentials, and in the folder of secrets. Files
are read again when they change, so that a secret can be replaced while the node runs; a file that
every user may read is refused. Values are never logged, shown or put into an error: every returned
value is recorded here, to be redacted from output.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from headrace.model.errors import Misuse
from headrace.model.redaction import Redaction
from headrace.model.webhook_signature import Secret

MAX_SECRET_BYTES = 65_536
PREFIX = "HEADRACE_SECRET_"
OTHERS = 0o007
"""Mode bits that a secret's file must not have: those of other users."""


class Secrets:
    """The node's secrets. Owned by assembly.

    Args:
        references: The reference of each secret, by name.
        environ: The environment.
        folders: Folders that are searched for a file with a secret's name, in this order.

    Attributes:
        blots: Every value that was returned.
    """

    def __init__(
        self,
        references: Mapping[str, str],
        environ: Mapping[str, str],
        folders: Sequence[Path] = (),
    ) -> None:
        self._references = references
        self._environ = environ
        self._folders = folders
        self._files: dict[str, tuple[tuple[str, int, int, int], bytes]] = {}
        self.blots = Redaction()

    def follow(self, other: Secrets) -> None:
        """Use the references and folders of `other` from now on."""
        self._references = other._references
        self._folders = other._folders

    def value(self, secret: Secret) -> bytes:
        """Return the secret's value, without the line end of a file.

        Raises:
            Misuse: It is not set, or cannot be read; the message holds its name, not its value.
        """
        name = secret.name
        kind, _, place = self._reference(name).partition(":")
        if kind == "file":
            found = self._read(name, Path(place))
        else:
            found = self._environ.get(place, "").encode() if kind == "env" else b""
            if not found:
                raise Misuse(self._unset(name))
        # Recorded before it is returned, so that no error with the value in it can be logged
        # first.
        self.blots.add(name, found.decode("utf-8", "backslashreplace"))
        return found

    def text(self, secret: Secret) -> str:
        """Return the value as text.

        Raises:
            Misuse: As `value`, or it is not a text.
        """
        try:
            return self.value(secret).decode()
        # `from None`, since the decoding error holds the secret's bytes.
        except UnicodeDecodeError:
            raise Misuse(
                f"the secret `{secret.name}` is not UTF-8 text; keep it in another form, such as base64"
            ) from None

    def header(self, secret: Secret) -> str:
        """Return the value for an HTTP header.

        Raises:
            Misuse: As `text`, or a header may not hold it.
        """
        found = self.text(secret)
        # RFC 9110, 5.5; a line break in the value would start another header.
        if not (found.isascii() and found.isprintable()):
            raise Misuse(
                f"the secret `{secret.name}` is not plain ASCII text of one line, as headers are"
            )
        return found

    def missing(self, needed: Mapping[str, Sequence[str]]) -> Iterator[str]:
        """Yield a sentence for each of these secrets that has no value now.

        Args:
            needed: The users of each secret, by its name.
        """
        for name, users in needed.items():
            try:
                self.value(Secret(name))
            except Misuse as error:
                who = ", ".join(f"`{each}`" for each in users)
                yield f"{who} cannot run: {error}"

    def _reference(self, name: str) -> str:
        """Return the reference of a secret."""
        variable = f"env:{PREFIX}{name}"
        if (listed := self._references.get(name)) is not None:
            return listed
        if self._environ.get(PREFIX + name):
            return variable
        return next(
            (f"file:{each / name}" for each in self._folders if _is_there(each / name)), variable
        )

    def _unset(self, name: str) -> str:
        listed = self._references.get(name)
        looked = (
            [listed]
            if listed is not None
            else [PREFIX + name, *(str(folder / name) for folder in self._folders)]
        )
        places = ", ".join(f"`{place}`" for place in looked)
        return (
            f"the secret `{name}` is not set (looked for it in {places}); set `{PREFIX}{name}`, put it into "
            f"a file `{name}` of the folder `secrets_folder`, or name its place in `[secrets]` of "
            f'headrace.toml: `{name} = "file:/path"` or `"env:VARIABLE"`'
        )

    def _read(self, name: str, path: Path) -> bytes:
        try:
            seen = path.stat()
            if seen.st_mode & OTHERS:
                raise Misuse(
                    f"the secret `{name}`: every user may read `{path}` (its mode is "
                    f"{seen.st_mode & 0o777:04o}); run `chmod 600 {path}`"
                )
            # Size and inode too: a file that is replaced by a rename may keep its time of change.
            stamp = (str(path), seen.st_mtime_ns, seen.st_size, seen.st_ino)
            kept = self._files.get(name)
            if kept is not None and kept[0] == stamp:
                return kept[1]
            if seen.st_size > MAX_SECRET_BYTES:
                raise Misuse(
                    f"the secret `{name}`: `{path}` has more than {MAX_SECRET_BYTES:,} bytes"
                )
            found = path.read_bytes().rstrip(b"\r\n")
        except OSError as error:
            raise Misuse(
                f"the secret `{name}` cannot be read from `{path}`: {error.strerror}; correct "
                "`[secrets]` in headrace.toml, or the file's rights"
            ) from error
        if not found:
            raise Misuse(f"the secret `{name}`: `{path}` is empty; put the value into it")
        self._files[name] = (stamp, found)
        return found


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        # The read reports the error, with its cause.
        return True
