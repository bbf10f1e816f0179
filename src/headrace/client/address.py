"""Address of a node: what it writes into its data folder, by which programs outside find it.

In: an address, an environment, a data folder. Out: the address with the token and the certificate to use.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

DEFAULT_PORT = 4280
KEY_FILE = "operator.key"


class NodeFile(msgspec.Struct, frozen=True):
    """Description of a running node, stored in its data folder as `node.json`.

    Attributes:
        url: Its address, where the apps' routes are.
        pid: Its process.
        certificate: The path of the certificate it shows; "" where it speaks plain HTTP.
        api_url: The address of the platform's own paths; "" where it is the same.
    """

    url: str
    pid: int = 0
    certificate: str = ""
    api_url: str = ""

    @property
    def api(self) -> str:
        """Address that commands talk to."""
        return self.api_url or self.url


def write_note(data: Path, note: NodeFile) -> Path:
    """Write the description of the node that owns the data folder, atomically."""
    place, whole = data / "node.json", data / "node.json.new"
    whole.unlink(missing_ok=True)
    whole.touch(mode=0o600)
    whole.write_bytes(msgspec.json.encode(note))
    return whole.replace(place)


def read_note(data: Path) -> NodeFile | None:
    """Read the description that the node wrote into its data folder; None if there is none."""
    try:
        return msgspec.json.decode((data / "node.json").read_bytes(), type=NodeFile)
    except (OSError, msgspec.DecodeError):
        return None


def read_key(data: Path) -> str:
    """Return the key of the node that owns the data folder; "" if there is no readable one."""
    try:
        return (data / KEY_FILE).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


class Address(msgspec.Struct, frozen=True):
    """Address of a node for a command, with the token and certificate to use.

    Attributes:
        url: The node's address.
        token: `HEADRACE_TOKEN`, else the key of the node that is meant; "" where there is neither.
        certificate: The certificate of the node that is meant, which alone is trusted; "" for another
            machine's node, which the system's authorities must vouch for.
    """

    url: str
    token: str = ""
    certificate: str = ""


def client_address(
    url: str | None = None, environ: Mapping[str, str] | None = None, data: Path | None = None
) -> Address:
    """The node a command talks to: `url`, else `HEADRACE_URL`, else the data folder's own.

    The key and the certificate are those of the data folder, for the very address that folder's
    node wrote down and for no other.
    """
    environ = os.environ if environ is None else environ  # noqa: TID251 - a program outside has no settings
    folder = data or Path(environ.get("HEADRACE_DATA", ".headrace"))
    note = read_note(folder)
    ours = f"http://127.0.0.1:{DEFAULT_PORT}" if note is None else note.api
    url = url or environ.get("HEADRACE_URL") or ours
    token = environ.get("HEADRACE_TOKEN", "")
    if note is None or not _same_server(note.api, url):
        return Address(url, token)
    return Address(url, token or read_key(folder), note.certificate)


def _same_server(one: str, other: str) -> bool:
    """Return whether two addresses are the same server on this machine, under different host names."""
    ends = [urlsplit(url if "//" in url else f"http://{url}") for url in (one, other)]
    hosts = {"127.0.0.1" if end.hostname == "localhost" else end.hostname for end in ends}
    return (
        len(hosts) == 1 and ends[0].netloc.rpartition(":")[2] == ends[1].netloc.rpartition(":")[2]
    )
