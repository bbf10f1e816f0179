"""State that a forked child must not share with its zygote: randomness, its thread's number, fork hooks.

`threading`, `logging` and `random` repair themselves by hooks after a fork. A zygote has one
thread, which is checked before every fork, and seeds every child again, so these hooks have nothing
to do there and would be more than half of the cost of a fork. They run as usual after a fork by the
author's code in an instance.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

Hooks = dict[str, Callable[[], Any]]


def hold(held: Sequence[Hooks]) -> Callable[[], None]:
    """Suspend hooks until the returned function is called, as instances do.

    Args:
        held: The arguments of the calls of `os.register_at_fork`, in order.
    """
    # `os.register_at_fork` documents this order: before-hooks run in reverse, the others as
    # registered.
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

    # A hook cannot be unregistered, so these stay and check `released` at every fork.
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
    """Seed the generators again: otherwise every child would draw the zygote's numbers."""
    for name, seed in (("random", None), ("numpy.random", list(os.urandom(32)))):
        # Not imported here: a module that was never imported holds no state that children could
        # share.
        generator = sys.modules.get(name)
        if generator is not None:
            generator.seed(seed)


def renumbering() -> Callable[[], object]:
    """Return a function that updates the native id of the main thread in a child."""
    thread = threading.main_thread()
    # A private method: without it `threading.get_native_id` and log records show the zygote's
    # number. `int` does nothing where an interpreter has renamed it.
    return getattr(thread, "_set_native_id", int)
