"""Durations and sizes on the command line."""

from __future__ import annotations

from typing import Any

import click
import pytest

from headrace.cli.duration_type import DurationType
from headrace.cli.main import main
from headrace.cli.size_type import SizeType

WRONG = ["", "x", "-1", "nan", "inf", "5 minutes", "64mb", "9" * 400]


@pytest.mark.parametrize("text", WRONG)
@pytest.mark.parametrize("kind", [DurationType(0, 3_600), SizeType(0, 1 << 30)])
def test_a_wrong_value_is_a_usage_error_with_a_fix(kind: click.ParamType[Any], text: str) -> None:
    with pytest.raises(click.UsageError, match=r"the value is .*; (write|use) |out of range; use "):
        kind.convert(text, None, None)


def test_durations_and_sizes_are_read_as_everywhere() -> None:
    assert DurationType(0, 3_600).convert("1m30s", None, None) == 90
    assert SizeType(0, 1 << 30).convert("64MiB", None, None) == 64 << 20


def test_a_command_says_which_option_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--slot-warning", "64mb"]) == 2
    said = capsys.readouterr().err
    assert "--slot-warning" in said
    assert 'a text such as "512KiB"' in said
