"""The command line: finds the command, loads only its file, and turns errors into one clear line.

`headrace --help` must be quick, so the list of commands stands here and their code is imported when
one is called. Exit status: 0 done, 1 something must be changed (said on stderr), 2 wrong usage.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import click

from headrace.cli.command_groups import CommandGroup
from headrace.model.errors import HeadraceError

# Group -> name -> (file of this folder, what it does); the attribute in the file is `NAME_command`.
GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "Develop": {
        "new": ("new", "Write a small project that runs."),
        "dev": ("serve", "Run an app here and reload it when its files change."),
        "validate": ("validate", "Check an app and its settings without running it."),
        "invoke": ("functions", "Call a function and print its answer."),
        "publish": ("publish", "Publish events on a stream."),
        "graph": ("maps", "Print the topology for a drawing tool."),
        "export": ("export", "Export a description of the deployment (OpenAPI)."),
        "bench": ("bench", "Measure this machine: publish -> function -> commit."),
        "completion": ("completion", "Print the completion script of a shell."),
    },
    "Inspect": {
        "list": ("functions", "List functions and streams."),
        "map": ("maps", "Print the function-trigger map."),
        "lag": ("functions", "Show how far each function is behind."),
        "tail": ("tail", "Show the latest events of a stream, and follow it."),
        "invocations": ("logs", "Show the latest invocations."),
        "logs": ("logs", "Show what functions wrote."),
        "explain": ("dead_letters", "Show where an event is, or why a pattern does not match."),
        "state": ("state", "Show the stores of an app."),
        "console": ("console", "Print a link that signs a browser in to the console."),
    },
    "Repair": {
        "dead": ("dead_letters", "List, show, export, edit, redrive or discard dead letters."),
        "parked": ("dead_letters", "List, redrive or discard parked keys."),
        "queue": ("queues", "List queues, inspect one, redrive or purge it."),
        "schedule": ("schedule", "List schedules and fire one now."),
        "window": ("window", "Close the windows that are open."),
        "bus": ("bus", "Replay past events of a bus to its rules."),
        "pause": ("functions", "Stop delivery to a function; its positions wait."),
        "resume": ("functions", "Resume delivery to a paused function."),
        "reset": ("functions", "Move a function to another position in its streams."),
    },
    "Operate": {
        "serve": ("serve", "Run apps as a node."),
        "token": ("tokens", "Create, list and revoke tokens for clients."),
        "backup": ("backup", "Copy all data of a node, while it runs."),
        "doctor": ("doctor", "Show what this machine supports, and any problems."),
    },
}
COMMANDS: dict[str, tuple[str, str]] = {
    name: said for group in GROUPS.values() for name, said in group.items()
}


class LazyCommands(CommandGroup):
    """A group that imports a command's file when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every name, in the order they are worth reading."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"headrace.cli.{COMMANDS[cmd_name][0]}")
        command = getattr(module, f"{cmd_name}_command")
        assert isinstance(command, click.Command)  # noqa: S101 - a mistake in the table above
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing any."""
        longest = max(map(len, COMMANDS))
        for title, commands in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl(
                    [(name.ljust(longest), text) for name, (_, text) in commands.items()]
                )


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        import importlib.metadata

        click.echo(f"headrace {importlib.metadata.version('headrace')}")
        ctx.exit()


@click.group(
    cls=LazyCommands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Print the version.",
)
def cli() -> None:
    """Functions for event streams: every event in order, every effect exactly once."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; its exit status."""
    try:
        status = cli.main(
            args=None if arguments is None else list(arguments),
            prog_name="headrace",
            standalone_mode=False,
        )
    except click.exceptions.Abort as abort:
        # click distinguishes an interrupt from a `no` only by what came before.
        interrupted = isinstance(abort.__context__, KeyboardInterrupt)
        click.echo("interrupted" if interrupted else "not done", err=True)
        return 130 if interrupted else 1
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except HeadraceError as error:
        click.echo(f"error: {error}", err=True)
        return 1
    except BrokenPipeError:
        # The reader of our output has seen enough. Python must not complain when it flushes.
        sys.stdout = None
        return 0
    return status if isinstance(status, int) else 0


if __name__ == "__main__":
    sys.exit(main())
