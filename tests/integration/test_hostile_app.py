"""A hostile app asks for all it should not get: what it is answered is what the page says."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from tests.integration.hostile_app import page
from tests.integration.hostile_app.asking import LEVELS, Answers, all_answers
from tests.integration.hostile_app.questions import NOTHING, REACHED

from headrace.runtime.sandbox import landlock

pytestmark = pytest.mark.skipif(
    landlock.version() < 6, reason="a kernel that scopes signals and sockets (landlock 6)"
)

SHARED = "write what a sibling keeps in their app's own folder"
"""Reached by all, as it is meant to be."""


@pytest.fixture(scope="module")
def found() -> dict[str, Answers]:
    # Not in pytest's own folder, which every other session that begins closes to other users again.
    with tempfile.TemporaryDirectory(prefix="hostile") as made:
        folder = Path(made)
        folder.chmod(folder.stat().st_mode | 0o755)
        return all_answers(folder)


def test_every_answer_is_the_one_that_the_page_documents(found: dict[str, Answers]) -> None:
    told = page.read(page.PAGE.read_text())
    seen = page.cells_of(found)
    assert told.keys() == seen.keys()
    differ = {
        (*where, *place): (answer, told[where][place])
        for where, row in seen.items()
        for place, answer in row.items()
        if answer != told[where][place]
    }
    assert not differ, "answered otherwise than documented (seen, documented)"


def test_it_asks_for_enough(found: dict[str, Answers]) -> None:
    assert len(page.cells_of(found)) >= 80


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be one host and another")
def test_of_a_host_that_is_root_nothing_is_reached_beyond_the_app_at_level_2(
    found: dict[str, Answers],
) -> None:
    for (group, name), row in found["root"].items():
        if group in {"door", "files", "processes", "kernel"} and name != SHARED:
            assert row[2] != REACHED, name


def test_instances_of_an_app_share_its_own_folder_at_every_level(found: dict[str, Answers]) -> None:
    for user, answers in found.items():
        assert answers["files", SHARED] == dict.fromkeys(LEVELS, REACHED), user


def test_nobody_operates_the_node_or_reaches_its_process(found: dict[str, Answers]) -> None:
    must = [
        ("door", "make itself a token"),
        ("door", "pause another app's function"),
        ("door", "ask for a link to the console"),
        ("door", "read the records of a private stream"),
        ("host", "read another app's state by a raw question"),
        ("host", "forge an event on a private stream"),
        ("processes", "signal the host"),
        ("kernel", "become root"),
        ("kernel", "have a capability"),
        ("share", "leave a process that outlives the node"),
        ("at import", "declare a function as another app's"),
    ]
    for user, answers in found.items():
        for where in must:
            for level in LEVELS:
                assert answers[where][level] not in {REACHED, ""}, (user, *where)
    assert NOTHING in found["other"]["kernel", "have a capability"].values()
