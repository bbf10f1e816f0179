"""Every command answers --help, and wrong usage is said with status 2."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import click
import pytest

from headrace.cli.main import COMMANDS, GROUPS, main

ROOT = Path(__file__).parents[3]

HELP = """\
Usage: headrace [OPTIONS] COMMAND [ARGS]...

  Functions for event streams: every event in order, every effect exactly
  once.

Options:
  --version   Print the version.
  -h, --help  Show this message and exit.
"""


def every_command() -> list[tuple[str, ...]]:
    """Each command and sub-command, as typed."""
    found: list[tuple[str, ...]] = []
    for name, (file, _) in COMMANDS.items():
        command = getattr(importlib.import_module(f"headrace.cli.{file}"), f"{name}_command")
        found.append((name,))
        if isinstance(command, click.Group):
            found += [(name, inner) for inner in command.commands]
    return found


def test_the_overview_names_every_command_with_its_purpose(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--help"]) == 0
    shown = HELP
    for title, commands in GROUPS.items():
        shown += f"\n{title}:\n"
        shown += "".join(f"  {name:<11}  {text}\n" for name, (_, text) in commands.items())
    assert capsys.readouterr().out == shown
    assert list(GROUPS) == ["Develop", "Inspect", "Repair", "Operate"]


def test_the_overview_imports_no_command() -> None:
    code = (
        "import sys\nfrom headrace.cli.main import main\nmain(['--help'])\n"
        "print(sorted(name for name in sys.modules if name.startswith('headrace.cli.') "
        "or name.split('.')[0] in {'httptools', 'apsw', 'asyncio', 'prometheus_client'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ast.literal_eval(done.stdout.splitlines()[-1]) == [
        "headrace.cli.command_groups",
        "headrace.cli.main",
    ]


@pytest.mark.parametrize("words", every_command(), ids=" ".join)
def test_every_command_has_help(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--help"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"Usage: headrace {' '.join(words)} ")
    assert "-h, --help" in said


@pytest.mark.parametrize("words", every_command(), ids=" ".join)
def test_every_command_is_in_the_reference(words: tuple[str, ...]) -> None:
    assert f"headrace {' '.join(words)}" in (ROOT / "docs/reference/cli.md").read_text()


def test_every_option_is_in_the_reference() -> None:
    text = (ROOT / "docs/reference/cli.md").read_text()
    missing = []
    for words in every_command():
        command = getattr(
            importlib.import_module(f"headrace.cli.{COMMANDS[words[0]][0]}"), f"{words[0]}_command"
        )
        for word in words[1:]:
            command = command.commands[word]
        missing += [
            f"{' '.join(words)} {option.opts[-1]}"
            for option in command.params
            if isinstance(option, click.Option) and f"`{option.opts[-1]}" not in text
        ]
    assert missing == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["lagg"], "There is no command `lagg`. Did you mean `lag`?"),
        (["--lag"], "No such option"),
        (["dead", "lst"], "`dead` has no command `lst`. Did you mean `list`?"),
        (["token", "zzz"], "`token` has no command `zzz`. There are `"),
        (["publish"], "Missing argument"),
        (["publish", "s"], "Give one VALUE, or a file"),
        (["publish", "s", "1", "--file", "f"], "Give one VALUE, or a file"),
        (["publish", "s", "1", "--key-field", "k"], "are about the lines of a file"),
        (["publish", "s", "--file", "/nowhere.jsonl"], "cannot be read"),
        (["publish", "s", "1", "--batch", "0"], "is not in the range"),
        (["explain", "orders"], "write `stream/partition/offset`"),
        (["explain", "orders/x/1"], "write `stream/partition/offset`"),
        (["dead", "redrive", "shop.f"], "or say `--all`"),
        (["dead", "redrive", "shop.f", "orders/0/1", "--all"], "or say `--all`"),
        (["dead", "discard", "shop.f", "x"], "write `stream/partition/offset`"),
        (["parked", "redrive", "shop.f"], "or say `--all`"),
        (["new", "Not A Name"], "cannot be an app's name"),
        (["completion", "tcsh"], "is not one of"),
        (["serve", "--port", "70000"], "is not in the range"),
    ],
)
def test_wrong_usage_is_said_with_status_2(
    words: list[str],
    says: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    said = capsys.readouterr()
    assert says in " ".join(said.err.split())
    assert said.out == ""


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["lag", "--url", "http://127.0.0.1:9"],
            "error: no node answers at `http://127.0.0.1:9` (Connection refused); start one with "
            "`headrace dev app.py`, or name its address with `--url` or `HEADRACE_URL`\n",
        ),
        (
            ["lag", "--url", "nonsense://x"],
            "error: `nonsense://x` is not an address of a node; write one like `http://127.0.0.1:4280`\n",
        ),
        (
            ["lag", "--data", "nowhere"],
            "error: no node runs on the data folder `nowhere`: it holds no `node.json`; start one with "
            "`headrace serve app.py --data nowhere`, or name another folder\n",
        ),
        (
            ["serve", "a.py", "--data", "/proc/nowhere"],
            "headrace: the data folder `/proc/nowhere` cannot be made: No such file or directory; "
            "choose one with `--data` that this user may write\n",
        ),
        (
            ["serve"],
            "error: no app is named; write `headrace serve app.py`, or set `targets` in headrace.toml\n",
        ),
        (
            ["serve", "a.py", "--config", "nowhere.toml"],
            "error: the settings file `nowhere.toml` cannot be read: No such file or directory; "
            "correct `--config` or `HEADRACE_CONFIG`\n",
        ),
        (
            ["new", "shop", "--in", "."],
            "error: `.` is not empty; choose another name, or a folder with `--in`\n",
        ),
    ],
)
def test_what_must_be_changed_is_one_line_with_status_1(
    words: list[str],
    says: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "here").touch()
    monkeypatch.chdir(tmp_path)
    assert main(words) == 1
    assert capsys.readouterr().err == says


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_is_printed(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert "_HEADRACE_COMPLETE" in capsys.readouterr().out


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("headrace ")
