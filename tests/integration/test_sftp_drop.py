"""A drop on a real SFTP server: every version of a file once, whoever hangs up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.test_object_stores import fed, told

from headrace.environment.clock import SystemClock
from headrace.errors import Misuse
from headrace.model.errors import Unavailable
from headrace.sources import Sftp
from headrace.sources.files.sftp import SftpFolder

asyncssh: Any = pytest.importorskip("asyncssh", reason="install `headrace[sftp]`")


class Server:
    """An SFTP server in this process, over a folder, for one key."""

    def __init__(self, folder: Path) -> None:
        self.drop = folder / "root" / "drop"
        self.drop.mkdir(parents=True)
        self._root = folder / "root"
        self.key = folder / "key"
        self.known = folder / "known"
        self._host_key = asyncssh.generate_private_key("ssh-ed25519")
        mine = asyncssh.generate_private_key("ssh-ed25519")
        mine.write_private_key(str(self.key))
        self._authorized = folder / "authorized"
        self._authorized.write_bytes(mine.export_public_key())
        self._listener: Any = None
        self.port = 0

    async def open(self) -> None:
        root = str(self._root).encode()
        self._listener = await asyncssh.listen(
            "127.0.0.1",
            self.port,
            server_host_keys=[self._host_key],
            authorized_client_keys=str(self._authorized),
            allow_scp=False,
            sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=root),
        )
        self.port = self._listener.sockets[0].getsockname()[1]
        public = self._host_key.export_public_key().decode()
        self.known.write_text(f"[127.0.0.1]:{self.port} {public}")

    async def close(self) -> None:
        self._listener.close()
        await self._listener.wait_closed()

    def trigger(self, known: Path | None = None) -> Sftp:
        return Sftp(
            f"sftp://me@127.0.0.1:{self.port}/drop",
            glob="*.csv",
            settle=0.1,
            poll=0.05,
            private_key=str(self.key),
            known_hosts=str(known or self.known),
        )


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    opened = Server(tmp_path)
    await opened.open()
    yield opened
    await opened.close()


async def test_every_version_of_a_file_is_told_once_across_restarts(
    server: Server, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (server.drop / "a.csv").write_text("1")
    (server.drop / "notes.txt").write_text("not meant")
    (server.drop / "link.csv").symlink_to(server.drop / "a.csv")
    (server.drop / "folder.csv").mkdir()
    async with fed(data, server.trigger()) as broker:
        assert await told(broker, 1) == ["created a.csv 1"]
    (server.drop / "a.csv").write_text("123")
    (server.drop / "b.csv").write_text("")
    async with fed(data, server.trigger()) as broker:
        assert (await told(broker, 3))[1:] == ["modified a.csv 3", "created b.csv 0"]
        (server.drop / "b.csv").unlink()
        assert (await told(broker, 4))[3:] == ["deleted b.csv None"]


async def test_a_server_that_is_away_or_unknown_is_no_empty_folder(
    server: Server, tmp_path: Path
) -> None:
    strange = tmp_path / "strange"
    strange.write_text("")
    drop = SftpFolder(server.trigger(strange), SystemClock())
    with pytest.raises(Unavailable, match="cannot be read"):
        await drop.look()
    drop = SftpFolder(server.trigger(), SystemClock())
    (server.drop / "a.csv").write_text("1")
    assert list(await drop.look()) == ["a.csv"]
    server.drop.rename(server.drop.parent / "away")
    with pytest.raises(Unavailable, match="cannot be read"):
        await drop.look()
    (server.drop.parent / "away").rename(server.drop)
    assert list(await drop.look()) == ["a.csv"]
    await drop.close()


async def test_a_name_that_is_no_text_hides_no_other(server: Server, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name in ("a.csv", "\udcfe.csv", "\udcff.csv"):
        (server.drop / name).write_text("1")
    async with fed(data, server.trigger()) as broker:
        assert sorted(await told(broker, 3)) == ["created a.csv 1", *["created \ufffd.csv 1"] * 2]
    async with fed(data, server.trigger()) as broker:
        (server.drop / "a.csv").write_text("12")
        assert (await told(broker, 4))[3:] == ["modified a.csv 2"]


async def test_a_file_that_is_no_key_is_named(server: Server) -> None:
    server.key.write_text("garbage")
    drop = SftpFolder(server.trigger(), SystemClock())
    with pytest.raises(Misuse, match=f"{server.key} is not a private key"):
        await drop.look()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("ftp://host/drop", "sftp://user@host"),
        ("sftp://host", "sftp://user@host"),
        ("sftp://me:secret@host/drop", "take the password out"),
    ],
)
def test_what_is_no_address_is_refused_where_it_is_written(url: str, says: str) -> None:
    with pytest.raises(Misuse, match=says) as refused:
        Sftp(url)
    assert "secret" not in str(refused.value)
