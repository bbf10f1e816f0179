"""A node that speaks TLS itself: requests, commands, the console, what it tells services, renewal."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from tests.integration.old_service import upstream

from headrace.http.server.tls import Certificate
from headrace.model.errors import Misuse
from headrace.testing.served import Served, serving

APP = """
from headrace import App, Event, Http

app = App("shop")
orders = app.stream("orders")

@app.function(Http("GET", "/hello"))
def hello(event, context):
    return "hello"

@app.function(orders)
def take(event) -> None: ...

app.proxy("/old", upstream="UPSTREAM")
"""
SETTINGS = '[node]\ntls_certificate = "chain.pem"\ntls_key = "key.pem"\n'


def issue(authority: trustme.CA, folder: Path, *names: str) -> None:
    """Write a certificate and its key as ACME clients do: new files under the same names."""
    issued = authority.issue_cert(*names)
    for name, pem in (
        ("key.pem", issued.private_key_pem),
        ("chain.pem", issued.cert_chain_pems[0]),
    ):
        pem.write_to_path(str(folder / f"{name}.new"))
        (folder / f"{name}.new").replace(folder / name)


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def serial(port: int, context: ssl.SSLContext) -> str:
    """Of the certificate that the node shows to a new connection."""
    connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=10)
    connection.connect()
    with contextlib.closing(connection):
        found = connection.sock.getpeercert() or {}
    return str(found["serialNumber"])


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def node(
    tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA
) -> Iterator[tuple[Served, Path]]:
    folder = tmp_path_factory.mktemp("tls")
    for parent in (folder, *folder.parents[:2]):
        parent.chmod(parent.stat().st_mode | 0o755)
    issue(authority, folder, "localhost")
    (folder / "headrace.toml").write_text(SETTINGS)
    with upstream() as old:
        (folder / "app.py").write_text(APP.replace("UPSTREAM", old))
        with serving(folder / "app.py", folder / "data") as found:
            yield found, folder


def asked(node: Served, authority: trustme.CA, path: str, **headers: str) -> bytes:
    port = int(node.url.rpartition(":")[2])
    connection = http.client.HTTPSConnection(
        "localhost", port, context=trusting(authority), timeout=20
    )
    with contextlib.closing(connection):
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        return answer.read()


def test_routes_answer_over_tls_and_services_behind_are_told_so(
    node: tuple[Served, Path], authority: trustme.CA
) -> None:
    found, _ = node
    assert found.url.startswith("https://")
    assert json.loads(asked(found, authority, "/hello")) == "hello"
    seen = json.loads(asked(found, authority, "/old/anything"))["headers"]
    assert seen["x-forwarded-proto"] == "https"


def test_plain_http_and_old_tls_are_turned_away(node: tuple[Served, Path]) -> None:
    port = int(node[0].url.rpartition(":")[2])
    plain = http.client.HTTPConnection("localhost", port, timeout=10)
    plain.request("GET", "/healthz")
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        plain.getresponse()
    plain.close()
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname = False
    old.verify_mode = ssl.CERT_NONE
    with pytest.warns(DeprecationWarning, match="deprecated"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        serial(port, old)


def test_commands_find_the_node_and_trust_its_certificate_alone(
    node: tuple[Served, Path],
) -> None:
    found, folder = node

    def command(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        named = {name: text for name, text in os.environ.items() if "HEADRACE" not in name}
        return subprocess.run(
            [sys.executable, "-m", "headrace.cli.main", *words],
            capture_output=True,
            text=True,
            check=False,
            cwd=folder,
            env={**named, **environ},
        )

    published = command("publish", "orders", '{"n": 1}', "--data", "data")
    assert published.returncode == 0, published.stderr
    # Elsewhere, an authority of the system must vouch for it.
    strange = command("lag", HEADRACE_URL=found.url)
    assert strange.returncode == 1
    assert "certificate" in strange.stderr


def test_a_renewed_certificate_is_shown_without_a_restart(
    node: tuple[Served, Path], authority: trustme.CA
) -> None:
    found, folder = node
    port = int(found.url.rpartition(":")[2])
    before = serial(port, trusting(authority))
    issue(authority, folder, "localhost")
    deadline = time.monotonic() + 60
    while serial(port, trusting(authority)) == before:
        assert time.monotonic() < deadline, "the renewed certificate did not come"
        time.sleep(0.5)


def test_a_renewal_that_does_not_fit_leaves_the_old_certificate(
    tmp_path: Path, authority: trustme.CA
) -> None:
    issue(authority, tmp_path, "localhost")
    certificate = Certificate(tmp_path / "chain.pem", tmp_path / "key.pem")
    assert not certificate.renew()
    kept = tmp_path / "kept.pem"
    shutil.copy(tmp_path / "key.pem", kept)
    issue(authority, tmp_path, "localhost")
    kept.replace(tmp_path / "key.pem")
    with pytest.raises(Misuse, match="belong together"):
        certificate.renew()
    # Told once; the next renewal is looked at anew.
    assert not certificate.renew()
    issue(authority, tmp_path, "localhost")
    assert certificate.renew()


@pytest.mark.parametrize("missing", ["chain.pem", "key.pem"])
def test_a_certificate_that_is_not_there_is_named_at_the_start(
    tmp_path: Path, authority: trustme.CA, missing: str
) -> None:
    issue(authority, tmp_path, "localhost")
    (tmp_path / missing).unlink()
    with pytest.raises(Misuse, match=missing):
        Certificate(tmp_path / "chain.pem", tmp_path / "key.pem")
