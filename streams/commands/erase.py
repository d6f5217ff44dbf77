"""`pointsman erase`: remove a principal from history, state and checkpoints, and keep it out."""

import getpass
from pathlib import Path

import click
from aiokafka.errors import KafkaError

from schemas.topics import ERASURES, EVENTS, FINDINGS
from streams import erasure
from streams.commands.brokers import json_option, print_json
from streams.commands.config import config_option, load_settings
from streams.commands.stores import on_store
from streams.erasure import Erased
from streams.kafka import connection
from streams.notifiers.text import inert, timestamp
from streams.settings import Settings
from streams.store import Store


@click.command()
@click.option("--principal", required=True, help="The payer's hash, as in `principal_hash`.")
@click.option("--tenant", default="", help="Only in this tenant; default: in all that the history knows it in.")
@click.option("--reason", default="", help="Kept with the tombstone; default: none.")
@click.option("--wait", "seconds", type=click.FloatRange(0, 3_600), default=60.0, show_default=True,
              help="Seconds for the detect lane, then for the history lane, to reach the tombstone.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Say what there is, and change nothing.")
@config_option
@json_option
def command(
    principal: str, tenant: str, reason: str, seconds: float, dry_run: bool, path: Path | None, as_json: bool
) -> None:
    """Erase what a principal did until now. It may be run again; what it does later is recorded anew.

    Exits with 1 when one of them did not in time: run it again then. Kafka's own topics
    keep their records until their retention ends; nothing of ours stores, replays or judges them again.
    """
    settings = load_settings(path)

    async def work(store: Store) -> list[Erased]:
        tenants = [tenant] if tenant else await erasure.tenants_of(store, principal)
        return [await _erase(settings, store, one, principal, reason, seconds, dry_run) for one in tenants]

    try:
        found = on_store(settings.clickhouse, work)
    except KafkaError as error:
        raise click.ClickException(str(error)) from error
    if not found:
        raise click.ClickException("the history knows no such principal: give its --tenant")
    if as_json:
        print_json(found)
    else:
        for one in found:
            _print(one)
    if not all(one.settled for one in found):
        raise click.ClickException("the detect or the history lane has not reached the tombstone: run it again")


async def _erase(
    settings: Settings, store: Store, tenant: str, principal: str, reason: str, seconds: float, dry_run: bool
) -> Erased:
    kafka, suffix = settings.kafka, settings.kafka.topic_suffix
    brokers = connection(kafka) if kafka.bootstrap else None
    tombstone = erasure.erasure_of(tenant, principal, getpass.getuser(), reason)
    keys = await erasure.state_keys(brokers, suffix, principal) if brokers else 0
    settled = True
    if brokers and not dry_run:
        await erasure.publish(brokers, suffix, ERASURES, tombstone)
        places = await erasure.publish(brokers, suffix, EVENTS, tombstone)
        judged = await erasure.wait_for(brokers, settings.detect.group + suffix, places, seconds)
        places |= await erasure.publish(brokers, suffix, FINDINGS, tombstone)
        settled = await erasure.wait_for(brokers, settings.clickhouse.group + suffix, places, seconds) and judged
    rows, mentions = await erasure.count(store, tombstone)
    if not dry_run:
        await erasure.remove(store, tombstone)
    return Erased(
        tenant_id=tenant, principal_hash=principal, until=tombstone.until, dry_run=dry_run, rows=rows,
        mentions=mentions, state_keys=keys, settled=settled,
    )  # fmt: skip


def _print(found: Erased) -> None:
    done = "would be removed" if found.dry_run else "removed"
    click.echo(f"{inert(found.principal_hash)} in tenant {inert(found.tenant_id)}, until {timestamp(found.until)}")
    for table, number in found.rows.items():
        click.echo(f"  {table}: {number} rows {done}")
    for table, number in found.mentions.items():
        click.echo(f"  {table}: {number} rows of others, in which it {'is' if found.dry_run else 'was'} mentioned")
    click.echo(f"  state: {found.state_keys} keys of checkpoints name it" + ("" if found.dry_run else
               "; they go with the next checkpoint"))  # fmt: skip
