"""The `pointsman` command: each subcommand is a module of its own, imported only when it is called."""

import importlib

import click

# name -> module under streams/commands that holds a click command or group of that name
COMMANDS = {
    "alerts": "alerts",
    "audit": "audit",
    "threshold": "threshold",
    "detections": "detections",
    "diff": "diff",
    "dlq": "dlq",
    "config": "config",
    "erase": "erase",
    "eval": "eval",
    "explain": "explain",
    "export": "export",
    "verify": "verify",
    "novelty": "novelty",
    "metrics": "metrics",
    "schema": "schema",
    "replay": "replay",
    "serve": "serve",
    "simulate": "simulate",
    "text": "text",
    "triggers": "triggers",
    "topics": "topics",
    "kafka": "kafka",
    "migrate": "migrate",
    "query": "query",
}


class LazyGroup(click.Group):
    """Keeps `pointsman --help` and every short command free of the others' imports."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all subcommands, sorted."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one subcommand, or None when there is no such one."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"streams.commands.{COMMANDS[cmd_name]}")
        command: click.Command = module.command
        return command


@click.command(cls=LazyGroup)
@click.version_option(package_name="pointsman")
def main() -> None:
    """Pointsman watches the switch of an LLM stack."""
