"""A node as it is deployed: its service manager hears of it, and a backup of it is restored."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from headrace.node.config import environment_of
from headrace.testing import serving

APP = """
from headrace import App

app = App("shop")
orders = app.stream("orders", partitions=1)


@app.function(orders)
def add_up(event, context):
    (app.folder / "kept").touch()
    context.state.update("total", lambda known: known + event.value, default=0)
"""


def test_a_backup_of_a_running_node_is_restored_and_goes_on(tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text(APP)
    first, second = tmp_path / "first", tmp_path / "second"
    second.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        environ = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        with serving(app, first, environ=environ) as node:
            assert manager.recv(64) == b"READY=1"
            assert node.ask("POST", "/-/v1/streams/orders", 5).status == 202
            done = subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "headrace.cli.main",
                    "backup",
                    str(second / "headrace.db"),
                    "--data",
                    str(first),
                ],
                env=environment_of({}),
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            assert done.returncode == 0, done.stderr
            assert "checked" in done.stdout
            assert f"copy them too: `{first / 'files' / 'shop'}`" in done.stdout
            node.ask("POST", "/-/v1/streams/orders", 7)
        assert manager.recv(64) == b"STOPPING=1"
    with serving(app, second) as node:
        records = node.ask("GET", "/-/v1/streams/orders/records").body["records"]
        assert [each["value"] for each in records] == [5]
        assert node.ask("POST", "/-/v1/streams/orders", 1).status == 202
