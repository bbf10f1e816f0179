"""Secrets on a real node: who gets them, where they come from, and where they never show."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.integration.app_folders import command, write

from headrace.environment.clock import SystemClock
from headrace.testing import serving

STRIPE, BANK, PEM = (
    "sk_live_4242xyz",
    "bank-password-77",
    "-----BEGIN-----\nMIIBOgIBAAJB\n-----END-----",
)

APP = """
import logging, os, resource, subprocess, sys
from pathlib import Path
from headrace import App, Context, DeadLetter, Retry

shop = App("shop", secrets=["BANK"], env=["*"])
paid = shop.stream("paid")
held = {}


@shop.init
def open_bank():
    held["bank"] = shop.secret("BANK")


@shop.function(secrets=["STRIPE", "PEM"])
def charge(event, context: Context):
    stripe = context.secret("STRIPE")
    print("charging with", stripe)
    print("x" * 8180 + stripe)
    logging.getLogger("shop").warning("key %s and %s", stripe, held["bank"])
    print(context.secret("PEM"))
    subprocess.run(["echo", f"a child says {stripe}"])
    os.write(2, ("y" * 8180 + stripe + "z" * 20 + "\\n").encode())
    return [len(stripe), held["bank"] == context.secret("BANK")]


@shop.function(paid, secrets=["STRIPE"], retry=Retry(attempts=1), on_failure=DeadLetter())
def settle(event, context: Context):
    raise ValueError("w" * 4090 + context.secret("STRIPE") + f" {held['bank']!r}")


@shop.function()
def refuse(event, context: Context):
    raise RuntimeError(f"the bank said no to {held['bank']}")


@shop.function()
def peek(event, context: Context):
    return context.secret("STRIPE")


@shop.function(secrets=["STRIPE"])
def now(event, context: Context):
    return context.secret("STRIPE")


@shop.function()
def look(event, context: Context):
    return {
        "environ": dict(os.environ), "cores": resource.getrlimit(resource.RLIMIT_CORE)[0],
        "parent": Path(f"/proc/{os.getpid()}/environ").read_bytes().decode(errors="replace"),
    }
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    keys = tmp_path / "keys"
    keys.mkdir()
    keep(keys / "STRIPE", STRIPE)
    keep(keys / "PEM", PEM)
    write(
        tmp_path, APP, f"[node]\nsecrets_folder = '{keys}'\n[secrets]\nBANK = 'env:BANK_PASSWORD'\n"
    )
    return tmp_path


def keep(place: Path, text: str) -> None:
    fresh = place.with_suffix(".new")
    fresh.touch(mode=0o600)
    fresh.write_text(text + "\n")
    fresh.replace(place)


def holds(folder: Path, value: str) -> list[str]:
    """The files beneath a folder that hold a value."""
    return [
        str(each)
        for each in folder.rglob("*")
        if each.is_file() and value.encode() in each.read_bytes()
    ]


def test_a_secret_is_handed_out_and_shows_nowhere(folder: Path) -> None:
    data = folder / "data"
    with serving(folder / "app.py", data, environ={"BANK_PASSWORD": BANK}) as node:
        assert node.ask("POST", "/-/v1/functions/shop.charge", {}).body == [len(STRIPE), True]
        refused = node.ask("POST", "/-/v1/functions/shop.refuse", {})
        assert "RuntimeError: the bank said no to [secret BANK]" in refused.body["detail"]
        node.ask("POST", "/-/v1/streams/paid", {"a": 1})
        clock = SystemClock()
        end = clock.monotonic() + 20
        while not (dead := node.ask("GET", "/-/v1/dead").body["dead"]):
            assert clock.monotonic() < end
        assert "[secre" in json.dumps(dead)
        pages = [
            node.ask("GET", path)
            for path in (
                "/-/v1/logs",
                "/-/v1/invocations",
                "/-/v1/dead",
                "/-/v1/map",
                "/-/v1/functions",
                "/console",
                "/console/failures",
                "/console/runs",
                "/console/functions/shop.charge",
                "/console/functions/shop.settle",
                "/console/dead/shop.settle/paid/0/0",
            )
        ]
        assert {page.status for page in pages} == {200}
        told = repr(pages)
        assert "sk_live" not in told
        assert told.count("[secret STRIPE]") > 5
        said = [line["text"] for line in node.ask("GET", "/-/v1/logs?limit=1000").body["logs"]]
        assert "charging with [secret STRIPE]" in said
        assert "key [secret STRIPE] and [secret BANK]" in said
        assert "a child says [secret STRIPE]" in said
        assert sum(text.startswith("x" * 8000) or text.startswith("y" * 8000) for text in said) == 2
        seen = node.ask("POST", "/-/v1/functions/shop.look", {}).body
        assert seen["cores"] in {0, 1}
        for value in (STRIPE, BANK, "MIIBOgIBAAJB"):
            assert value not in told
            assert value not in repr(seen)
        assert "sk_live" not in told, "a part of it is left where a line was cut"
    for value in (STRIPE, BANK, "MIIBOgIBAAJB"):
        assert holds(data, value) == []
        assert holds(folder, value) == (
            [str(folder / "keys" / "STRIPE")]
            if value == STRIPE
            else [str(folder / "keys" / "PEM")]
            if value != BANK
            else []
        )


def test_only_what_is_declared_is_handed_out(folder: Path) -> None:
    with serving(folder / "app.py", folder / "data", environ={"BANK_PASSWORD": BANK}) as node:
        failed = node.ask("POST", "/-/v1/functions/shop.peek", {})
        assert failed.status == 500
        assert "`shop.peek` does not declare the secret `STRIPE`" in failed.body["detail"]
        assert 'secrets=["STRIPE"]' in failed.body["detail"]


def test_a_secret_is_renewed_when_its_file_changes(folder: Path) -> None:
    with serving(folder / "app.py", folder / "data", environ={"BANK_PASSWORD": BANK}) as node:
        assert node.ask("POST", "/-/v1/functions/shop.now", {}).body == STRIPE
        keep(folder / "keys" / "STRIPE", "the new one")
        clock = SystemClock()
        end = clock.monotonic() + 20
        while node.ask("POST", "/-/v1/functions/shop.now", {}).body != "the new one":
            assert clock.monotonic() < end


@pytest.mark.parametrize(
    ("names", "environ", "told"),
    [
        ("GONE", {}, "`shop` cannot run: the secret `GONE` is not set"),
        ("OPEN", {}, "chmod 600"),
        ("GIVEN", {"HEADRACE_SECRET_GIVEN": "1"}, ""),
        ("CREDENTIAL", {}, ""),
        ("INSIDE", {}, ""),
    ],
)
def test_secrets_come_from_variables_credentials_and_folders_or_are_refused_by_name(
    tmp_path: Path, names: str, environ: dict[str, str], told: str
) -> None:
    for place, mode in (
        ("keys/OPEN", 0o644),
        ("keys/INSIDE", 0o600),
        ("credentials/CREDENTIAL", 0o440),
    ):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text("value")
        (tmp_path / place).chmod(mode)
    write(
        tmp_path,
        f'from headrace import App\nshop = App("shop", secrets=["{names}"])\n',
        "[node]\nsecrets_folder = 'keys'\n",
    )
    environ["CREDENTIALS_DIRECTORY"] = str(tmp_path / "credentials")
    done = command(tmp_path, "validate", "app.py", environ=environ)
    assert f"secret `{names}`: for `shop`" in done.stdout
    assert told in done.stdout
    assert done.returncode == (1 if told else 0)
    if told:
        served = command(tmp_path, "serve", "app.py", "--port", "0", environ=environ)
        assert served.returncode == 1
        assert told in served.stderr


def test_a_webhook_and_a_target_without_their_secrets_are_refused_as_well(tmp_path: Path) -> None:
    write(
        tmp_path,
        """
        from headrace import App, Webhook
        from headrace.bus import HttpTarget, Rule
        from headrace.webhooks import GitHub, Secret
        shop = App("shop")
        @shop.function(Webhook("/hook", signature=GitHub("HOOK")))
        def take(event): ...
        partner = HttpTarget("https://example.com/in", headers={"authorization": Secret("PARTNER")})
        shop.forward(Rule({"source": ["a"]}), to=partner, name="tell")
        """,
    )
    done = command(tmp_path, "serve", "app.py", "--port", "0")
    assert done.returncode == 1
    assert "`shop.take` cannot run: the secret `HOOK` is not set" in done.stderr
    assert "`shop.tell` cannot run: the secret `PARTNER` is not set" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may run as somebody else")
def test_another_process_of_the_nodes_user_cannot_read_its_environment() -> None:
    code = """
import os, subprocess
from headrace.runtime.kernel import PR_SET_DUMPABLE, keep_memory_private, prctl
os.setgid(54_321)
os.setuid(54_321)
for private in (False, True):
    keep_memory_private() if private else prctl(PR_SET_DUMPABLE, 1)
    print(subprocess.run(["cat", f"/proc/{os.getpid()}/environ"], capture_output=True).returncode)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.stdout.split() == ["0", "1"], done.stdout + done.stderr


def test_a_process_that_keeps_its_memory_private_leaves_no_core() -> None:
    code = (
        "import os, resource\nfrom headrace.runtime.kernel import keep_memory_private\n"
        "keep_memory_private()\nprint(resource.getrlimit(resource.RLIMIT_CORE)[0], flush=True)\nos.abort()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGABRT
    assert done.stdout.strip() in {"0", "1"}


@pytest.mark.parametrize(
    "ends",
    [
        "raise SystemExit(shop.secret('BANK'))",
        "sys.exit(['in a list', shop.secret('BANK')])",
        "os.write(3, b'x' * 16 + shop.secret('BANK').encode()); time.sleep(9)",
        "threading.Thread(target=lambda: 1 / len([]) and shop.secret('BANK')).start(); raise ValueError(shop.secret('BANK'))",
        "os.write(2, shop.secret('BANK').encode()); os.abort()",
    ],
)
def test_the_last_words_of_an_instance_hold_no_secret(tmp_path: Path, ends: str) -> None:
    code = f"""
import os, sys, threading, time
from headrace import App
shop = App("shop", secrets=["BANK"])
@shop.function()
def end(event):
    {ends}
@shop.function(timeout=5)
def other(event):
    return "there"
"""
    app = write(tmp_path, code)
    with serving(app, tmp_path / "data", environ={"HEADRACE_SECRET_BANK": BANK}) as node:
        failed = node.ask("POST", "/-/v1/functions/shop.end", {})
        assert failed.status >= 500
        assert node.ask("POST", "/-/v1/functions/shop.other", {}).body == "there"
        told = repr(
            [
                node.ask("GET", path)
                for path in ("/-/v1/logs", "/-/v1/invocations", "/-/v1/instances")
            ]
        )
        assert BANK not in told + repr(failed)


def test_what_a_start_hook_fails_with_holds_no_secret(tmp_path: Path) -> None:
    code = """
    from headrace import App
    shop = App("shop", secrets=["BANK"])
    @shop.init
    def log_in():
        raise ConnectionError(f"no login with {shop.secret('BANK')}")
    @shop.function()
    def pay(event): ...
    """
    app = write(tmp_path, code)
    with serving(app, tmp_path / "data", environ={"HEADRACE_SECRET_BANK": BANK}) as node:
        failed = node.ask("POST", "/-/v1/functions/shop.pay", {})
        assert "no login with [secret BANK]" in failed.body["detail"]
        assert BANK not in repr(
            [failed, *(node.ask("GET", path) for path in ("/-/v1/logs", "/-/v1/invocations"))]
        )
