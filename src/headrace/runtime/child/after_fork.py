"""State that a forked child must not share with its zygote: randomness, its thread's number, fork hooks.

`threading`, `logging` and `random` mend themselves after a fork. A zygote has one thread, which is
checked before every fork, and draws new randomness for every child, so between zygote and instance
there is nothing to mend, and the mending would be more than half of what a fork costs. Forks of the
author's own are another matter: in an instance the same hooks run as anywhere else.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

Hooks = dict[str, Callable[[], Any]]


def hold(held: Sequence[Hooks]) -> Callable[[], None]:
    """Keep hooks from running until what comes back is called, which instances do.

    Args:
        held: What `os.register_at_fork` would have been given, in order.
    """
    before = [hooks["before"] for hooks in reversed(held) if "before" in hooks]
    in_child = [hooks["after_in_child"] for hooks in held if "after_in_child" in hooks]
    in_parent = [hooks["after_in_parent"] for hooks in held if "after_in_parent" in hooks]
    released = False

    def run_before() -> None:
        if released:
            _call(before)

    def run_in_child() -> None:
        if released:
            _call(in_child)

    def run_in_parent() -> None:
        if released:
            _call(in_parent)

    def release() -> None:
        nonlocal released
        released = True

    os.register_at_fork(
        before=run_before, after_in_child=run_in_child, after_in_parent=run_in_parent
    )
    return release


def _call(hooks: Sequence[Callable[[], Any]]) -> None:
    for hook in hooks:
        try:
            hook()
        except Exception:  # noqa: BLE001 - as the interpreter does with hooks: reported, and gone on
            sys.excepthook(*sys.exc_info())


def reseed() -> None:
    """Generators seeded before a fork repeat in every child that does not get a seed of its own."""
    for name, seed in (("random", None), ("numpy.random", list(os.urandom(32)))):
        generator = sys.modules.get(name)
        if generator is not None:
            generator.seed(seed)


def renumbering() -> Callable[[], object]:
    """Return a function that gives the main thread of a child its own number."""
    thread = threading.main_thread()
    return getattr(thread, "_set_native_id", int)
