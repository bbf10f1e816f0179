"""What the page on deploying tells to copy holds: the unit, the Dockerfile, and what both promise."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from headrace.node.config import Settings, load
from headrace.node.lifecycle import CLOSE_S

PAGE = (Path(__file__).parents[2] / "docs" / "guides" / "deploying.md").read_text()


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)
    assert found, f"the page has no block of {language}"
    return found[1]


def dockerfile() -> list[tuple[str, str]]:
    lines = block("dockerfile").replace("\\\n", " ").splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines if line)]


def test_the_unit_lets_a_drain_end_and_stops_the_node_alone() -> None:
    unit = dict(re.findall(r"^(\w+)=(.*)$", block("ini"), re.M))
    assert unit["Type"] == "notify"
    assert unit["KillMode"] == "mixed"
    assert float(unit["TimeoutStopSec"]) > Settings().drain + CLOSE_S
    assert f"terminationGracePeriodSeconds: {unit['TimeoutStopSec']}\n" in block("yaml")
    assert f"--stop-timeout {unit['TimeoutStopSec']} " in PAGE


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "headrace.service"
    text = block("ini").replace("User=headrace", "User=root")
    text = re.sub(r"(?m)^ExecStart=.*$", "ExecStart=/bin/true", text)
    unit.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    told = [line for line in done.stderr.splitlines() if "headrace.service" in line]
    assert (done.returncode, told) == (0, [])


def test_the_dockerfile_keeps_the_usual_rules(tmp_path: Path) -> None:
    steps = dockerfile()
    (image,) = [rest for word, rest in steps if word == "FROM"]
    assert re.fullmatch(r"[\w/]+:\d+\.\d+[\w.-]*", image)
    assert [rest for word, rest in steps if word == "USER"] == ["10001"]
    assert all(rest.startswith("/") for word, rest in steps if word == "WORKDIR")
    assert all(rest.startswith("[") for word, rest in steps if word in {"CMD", "ENTRYPOINT"})
    assert all("--no-cache-dir" in rest for _, rest in steps if "pip install" in rest)
    assert not any(word in {"ADD", "MAINTAINER"} or "sudo" in rest for word, rest in steps)
    order = [word for word, _ in steps]
    assert order.index("USER") > max(i for i, word in enumerate(order) if word == "RUN")
    environ = dict(re.findall(r"(\w+)=(\S+)", next(rest for word, rest in steps if word == "ENV")))
    known = {name: text for name, text in environ.items() if name.startswith("HEADRACE_")}
    found = load(environ=known, folder=tmp_path)
    assert (found.host, found.port, found.access) == ("0.0.0.0", 4280, "token")
    assert f"runAsUser: {steps[order.index('USER')][1]}\n" in block("yaml")
