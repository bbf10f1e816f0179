"""A hostile app; what it asks is in `questions.py` beside it, its level of isolation in `about.json`."""

from __future__ import annotations

import importlib
import json
import os
import time
from pathlib import Path
from typing import Any

from headrace import App, Context, Event, Resources
from headrace.model.event import Event as Fact
from headrace.model.record import Append, encode_events
from headrace.runtime.child.recorder import Recorder
from headrace.runtime.protocol.messages import Extend

questions = importlib.import_module("questions")
ABOUT = json.loads((Path(__file__).parent / "about.json").read_text())
LEVEL: int = ABOUT["level"]
REACHED: str = questions.REACHED
app = App(f"hostile{LEVEL}")
MAY: dict[str, Any] = {
    "isolation": LEVEL,
    "memory": 96 << 20,
    "processes": 24,
    "files": 128,
    "file_size": 1 << 20,
}
EARLY = {name: questions.asked(name, ABOUT) for name in questions.ASKED_AT_IMPORT}
"""What was answered while the app was imported."""


@app.function(resources=Resources(**MAY))
def early(event: Event[Any]) -> dict[str, str]:
    """What was answered while the app was imported."""
    return EARLY


@app.function(resources=Resources(**MAY))
def sibling(event: Event[Any]) -> dict[str, Any]:
    """Somebody else of the app, with a file of its own."""
    for folder in (Path.cwd(), app.folder):
        (folder / "mine").write_text("secret")
    return {"sibling": os.getpid(), "scratch": str(Path.cwd()), "kept": str(app.folder)}


@app.function(resources=Resources(**MAY), timeout=60.0)
def ask(event: Event[Any]) -> dict[str, str]:
    """The answers to questions."""
    about = {**event.value["about"], **MAY, "zygote": os.getppid()}
    return {name: questions.asked(name, about) for name in event.value["names"]}


@app.function(resources=Resources(**MAY, network=False), timeout=60.0)
def ask_offline(event: Event[Any]) -> dict[str, str]:
    """The answers to questions, of one that asked for no network."""
    return {name: questions.asked(name, event.value["about"]) for name in event.value["names"]}


@app.function(resources=Resources(**MAY))
def forge_append(event: Event[Any], context: Context) -> str:
    """Say that it published to a stream that it may not publish to."""
    facts = encode_events([Fact(b'{"forged":true}')])
    Recorder.appends = lambda *_: (Append(event.value, 0, 1, facts),)  # type: ignore[method-assign]
    Recorder.blank = False  # type: ignore[method-assign,assignment]
    return REACHED


@app.function(resources=Resources(**MAY))
def garble(event: Event[Any]) -> str:
    """Write what is not a frame up its channel."""
    questions.channel()._link.sendall(b"\xff" * 64)
    time.sleep(5)
    return REACHED


@app.function(resources=Resources(**MAY), timeout=1.0)
def linger(event: Event[Any]) -> str:
    """Live longer than `timeout=` by asking for more time, again and again."""
    began = time.monotonic()
    while time.monotonic() - began < 4:
        questions.channel().send_now(Extend(3_600.0))
        time.sleep(0.2)
    return REACHED


@app.function(resources=Resources(**MAY), timeout=20.0)
def swarm(event: Event[Any]) -> str:
    """Take more memory than it may by child processes."""
    for _ in range(3):
        if os.fork() == 0:
            kept = bytearray(48 << 20)
            kept[::4_096] = b"x" * len(kept[::4_096])
            time.sleep(10)
            os._exit(0)
    time.sleep(4)
    return REACHED


@app.function(resources=Resources(**MAY))
def claim_line(event: Event[Any]) -> str:
    """Write a line of the log in another's name."""
    line = ["victim.keep:open/0/0", "log", "CRITICAL", "victim", "forged line \x1b[31m", 1]
    os.write(1, b"\x1e" + json.dumps(line).encode() + b"\n")
    return REACHED


@app.function(resources=Resources(**MAY))
def daemonise(event: Event[Any]) -> str:
    """Leave a process behind, in a session of its own."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execvp("sleep", ["sleep", event.value])
        os._exit(0)
    os.wait()
    return REACHED
