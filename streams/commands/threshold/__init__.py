"""`pointsman threshold`: what is in force, what is proposed, who decided what, and whether the record is whole."""

import click

from streams.commands.threshold import decide, routes, see


@click.group()
def command() -> None:
    """See and decide about thresholds. The feedback lane carries decisions out; all of them are in one chain."""


for _subcommand in (
    see.get, see.diff, see.history, see.verify, see.keys,
    decide.propose, decide.approve, decide.reject, decide.pin, decide.unpin, decide.freeze, decide.unfreeze,
    decide.rollback, routes.routes,
):  # fmt: skip
    command.add_command(_subcommand)
