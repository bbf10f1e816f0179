"""Checks of triggers before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.environment.clock import SystemClock
from headrace.environment.randomness import SystemEntropy
from headrace.model.errors import Misuse
from headrace.model.function import AppSpec, FunctionSpec
from headrace.model.triggers.base import StreamTrigger, Trigger
from headrace.model.triggers.files import Files
from headrace.model.triggers.schedules import At, Cron, Every
from headrace.sources.trigger_checks import check_patterns, missing_folders, named, refusals


def said(*triggers: Trigger) -> list[str]:
    function = FunctionSpec(name="shop.f", app="shop", triggers=triggers, source="shop.py:7")
    app = AppSpec(name="shop", functions=(function,))
    return refusals(app, SystemClock(), SystemEntropy())


@pytest.mark.parametrize(
    ("trigger", "says"),
    [
        (Cron("61 * * * *"), "is not a cron expression"),
        (Cron("0 7 * * *", tz="Europe/Berln"), "there is no time zone `Europe/Berln`"),
        (Cron("cron(0 7 * * * *)"), "must be `?`"),
        (At("2026-12-24T18:00", tz="Nowhere"), "there is no time zone `Nowhere`"),
        (StreamTrigger(streams=("s",), pattern={"value": {"a": [{"prefx": "x"}]}}), "`prefx`"),
    ],
)
def test_what_a_node_would_refuse_is_said_with_its_function(trigger: Trigger, says: str) -> None:
    (sentence,) = said(trigger)
    assert sentence.startswith("`shop.f` (shop.py:7): ")
    assert says in sentence


def test_each_wrong_trigger_has_a_sentence_and_a_right_one_none() -> None:
    fine = StreamTrigger(streams=("s",), pattern={"key": ["a"]})
    assert said(fine, Every(5), Cron("@daily")) == []
    assert len(said(Cron("x * * * *"), fine, Cron("y * * * *"))) == 2


def test_a_deployment_refuses_a_pattern_by_the_name_of_its_function() -> None:
    wrong = StreamTrigger(streams=("s",), pattern={"key": [{"prefx": "x"}]})
    function = FunctionSpec(name="shop.f", app="shop", triggers=(wrong,))
    with pytest.raises(Misuse, match=r"^`shop\.f`: .*`prefx`"):
        check_patterns(AppSpec(name="shop", functions=(function,)))


def test_a_sentence_that_names_its_function_is_left_alone() -> None:
    function = FunctionSpec(name="shop.f", app="shop")
    with pytest.raises(Misuse, match=r"^no: `shop\.f`$"), named(function):
        raise Misuse("no: `shop.f`")


def test_a_watched_folder_that_is_not_there_is_named_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here, away = Files("inbox"), Files(str(tmp_path / "away"))
    function = FunctionSpec(name="shop.f", app="shop", triggers=(here, away), source="shop.py:7")
    app = AppSpec(name="shop", functions=(function,))
    assert missing_folders(app) == [
        f"`shop.f` (shop.py:7): there is no folder `{tmp_path / 'inbox'}` (`inbox`, from the folder "
        "where the node was started) to watch; create it, or correct the path",
        f"`shop.f` (shop.py:7): there is no folder `{tmp_path / 'away'}` to watch; create it, or "
        "correct the path",
    ]
    (tmp_path / "inbox").mkdir()
    (tmp_path / "away").mkdir()
    assert missing_folders(app) == []
