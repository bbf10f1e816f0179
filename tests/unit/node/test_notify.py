"""Messages of the node to a service manager, on a real datagram socket."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from headrace.node.config import service_manager
from headrace.node.systemd import notify


def test_a_manager_at_a_path_hears_each_state(tmp_path: Path) -> None:
    place = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(place))
        address = service_manager({"NOTIFY_SOCKET": str(place)})
        assert notify(address, "READY=1")
        assert notify(address, "STOPPING=1")
        assert (manager.recv(64), manager.recv(64)) == (b"READY=1", b"STOPPING=1")


def test_a_manager_in_the_abstract_namespace_hears_it(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{tmp_path}")
        assert notify(f"@{tmp_path}", "READY=1")
        assert manager.recv(64) == b"READY=1"


def test_no_message_is_sent_without_a_service_manager() -> None:
    assert service_manager({}) == ""
    assert not notify("", "READY=1")


def test_a_manager_that_is_gone_costs_a_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert not notify(str(tmp_path / "gone"), "READY=1")
    assert "was not notified of `READY=1`" in caplog.text
