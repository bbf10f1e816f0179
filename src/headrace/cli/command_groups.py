"""A command with commands of its own; an unknown name is answered with those that look like it."""

from __future__ import annotations

import click

FORMER_COMMANDS = {"replay": "bus replay", "runs": "invocations"}
"""Commands that have another name now: `runs` is kept for those of workflows."""


class CommandGroup(click.Group):
    """As click's group, with near names where there is no such command."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, but for a command that is not there."""
        name = args[0] if args else ""
        known = self.list_commands(ctx)
        if name and name not in known and not name.startswith("-"):
            import difflib

            now = FORMER_COMMANDS.get(name, "") if ctx.parent is None else ""
            near = [now] if now else difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean `{near[0]}`?" if near else ""
            own = "" if ctx.parent is None else f"`{ctx.info_name}` has no"
            listed = "" if near or ctx.parent is None else f" There are {_listed(known)}."
            ctx.fail(f"{own or 'There is no'} command `{name}`.{hint}{listed}")
        return super().resolve_command(ctx, args)


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
