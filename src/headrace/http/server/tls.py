"""The TLS certificate of the HTTP server, loaded again when its files are renewed.

In: two PEM files, the certificate with its chain and the private key. Out: one TLS context for as long as
the server runs; connections that begin after a renewal get the new certificate. A renewal that cannot
be used is refused and the old certificate stays.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from headrace.model.errors import Misuse

LOOK_S = 30.0
"""Seconds between two checks of the files."""
HANDSHAKE_S = 10.0


class Certificate:
    """A certificate and its key. Owned by the gateway.

    Attributes:
        context: For every connection, TLS 1.2 or later, HTTP/1.1.

    Raises:
        Misuse: A file cannot be read, or the two do not belong together.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = certificate, key
        self._loaded = self._stamps()
        self.context = self._made()

    def renew(self) -> bool:
        """Load the files again if they have changed; return whether they had.

        Raises:
            Misuse: They have changed and cannot be used (yet).
        """
        found = self._stamps()
        if found == self._loaded:
            return False
        # Before they are tried: a certificate that cannot be used would else be logged every 30
        # s. ACME clients write the two files one after the other, so the second one's time stamp
        # causes another try.
        self._loaded = found
        # Tried on a separate context: OpenSSL replaces a context's certificate before it looks at the
        # key, so a pair that does not match would leave the server without either.
        self._made()
        self._load(self.context)
        return True

    def _made(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # RFC 7301: a client that also offers `h2` must learn that only HTTP/1.1 is spoken here.
        context.set_alpn_protocols(["http/1.1"])
        self._load(context)
        return context

    def _load(self, context: ssl.SSLContext) -> None:
        certificate, key = self._files
        try:
            context.load_cert_chain(certificate, key)
        except (OSError, ssl.SSLError) as error:
            raise Misuse(
                f"the certificate `{certificate}` with the key `{key}` cannot be used: "
                f"{error.strerror or error}; name two PEM files that belong together and that this "
                "user may read (`tls_certificate`, `tls_key`)"
            ) from error

    def _stamps(self) -> list[tuple[int, int]]:
        """Return a value that changes with a renewal."""
        # `stat` follows links: certbot renews by switching a link to another file.
        try:
            return [(found.st_ino, found.st_mtime_ns) for found in map(Path.stat, self._files)]
        except OSError as error:
            raise Misuse(
                f"`{error.filename}` cannot be read: {error.strerror}; `tls_certificate` and "
                "`tls_key` name PEM files"
            ) from error
