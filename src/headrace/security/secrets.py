"""Secrets by reference: a name in a spec -> the value, read where the operator keeps it.

References are `file:/run/secrets/x` or `env:NAME`; a name nobody lists is looked for in the
environment as `HEADRACE_SECRET_<NAME>`. Files are read again when they change, so that a secret can
be replaced while the node runs. Values are never logged, shown or put into an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from headrace.model.errors import Misuse
from headrace.model.signing import Secret

MAX_SECRET_BYTES = 65_536
PREFIX = "HEADRACE_SECRET_"


class Secrets:
    """The node's secrets. Owned by assembly.

    Args:
        references: Where each is kept, by name.
        environ: The environment.
    """

    def __init__(self, references: Mapping[str, str], environ: Mapping[str, str]) -> None:
        self._references = references
        self._environ = environ
        self._files: dict[str, tuple[tuple[int, int, int], bytes]] = {}

    def value(self, secret: Secret) -> bytes:
        """The secret's value, without the line's end a file may have.

        Raises:
            Misuse: It is kept nowhere, or cannot be read; the message names it, not its value.
        """
        name = secret.name
        reference = self._references.get(name, f"env:{PREFIX}{name}")
        kind, _, place = reference.partition(":")
        if kind == "file":
            return self._read(name, Path(place))
        found = self._environ.get(place, "").encode() if kind == "env" else b""
        if not found:
            raise Misuse(
                f"the secret `{name}` is not set (looked for it in `{reference}`); name its place in "
                f'`[secrets]` of headrace.toml: `{name} = "file:/path"` or `"env:VARIABLE"`'
            )
        return found

    def _read(self, name: str, path: Path) -> bytes:
        try:
            seen = path.stat()
            stamp = (seen.st_mtime_ns, seen.st_size, seen.st_ino)
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
