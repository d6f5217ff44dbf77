"""Erasing a principal: a tombstone first, then whatever the brokers' state and the history hold.

The tombstone goes to a compacted topic and to the history's table `erasures`: what reads an old record again, after
a restart or in a replay, leaves it out. It goes into every partition of the events and of the findings too, where
the lanes' state, being a function of those logs, forgets; the next checkpoint deletes its keys. The findings' comes
last, once the detect lane has come to the events' one: what it still found of the principal stands before it.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from schemas.clickhouse.tables import ALL, BEGUN, REPLAYS, Table
from schemas.codec import ERASE_HEADERS, encode
from schemas.erasures import Erasure
from schemas.topics import CHECKPOINTS, FLEET_CHECKPOINTS, Topic, named
from streams.kafka import read_to_end
from streams.store import Store

HELD = [table for table in (*ALL, *REPLAYS) if {"tenant_id", "principal_hash"} <= set(table.columns)]
# Lists of ids that rows about others may hold of this principal.
_LISTS = {"alerts": ("request_ids", "finding_ids"), "findings": ("request_ids",), "replay_alerts": ("request_ids",)}
_OURS = "principal_hash = {principal:String} AND tenant_id = {tenant:String}"


class Erased(msgspec.Struct, kw_only=True):
    """What was found of one principal in one tenant, and (but in a dry run) removed."""

    tenant_id: str
    principal_hash: str
    until: datetime
    dry_run: bool
    rows: dict[str, int]  # by table
    mentions: dict[str, int]  # rows of others that named it or its requests, by table
    state_keys: int  # of the checkpoints
    settled: bool = True  # false: a lane had not yet read the tombstone; run it again


async def tenants_of(store: Store, principal: str) -> list[str]:
    """The tenants that the history knows the principal in."""
    found: set[str] = set()
    for table in ("requests", "routes", "outcomes", "verdicts", "findings", "erasures"):
        sql = f"SELECT DISTINCT tenant_id FROM {table} WHERE principal_hash = {{principal:String}}"  # noqa: S608
        found |= {tenant for (tenant,) in (await store.query(sql, {"principal": principal})).rows}
    return sorted(found)


async def count(store: Store, erasure: Erasure) -> tuple[dict[str, int], dict[str, int]]:
    """Rows of the principal, and rows of others that mention it, by table; nothing is changed."""
    who = _who(erasure)
    rows = {table.name: await _count(store, table.name, _covered(table), who) for table in HELD}
    ids = await _ids(store, who)
    mentions = {}
    for table, columns in _LISTS.items():
        condition = f"NOT ({_OURS}) AND ({_mentions(table, columns)})"
        mentions[table] = await _count(store, table, condition, {**who, **ids})
    return _some(rows), _some(mentions)


async def remove(store: Store, erasure: Erasure) -> None:
    """Write the tombstone, then delete the principal's rows and take it out of others'. Bears being run again.

    Mutations rewrite the parts on disk, so what is deleted is gone when this returns; backups are not ours.
    """
    await store.command(
        "INSERT INTO erasures (tenant_id, principal_hash, until, actor, reason) SELECT {tenant:String},"
        " {principal:String}, {until:DateTime64(3, 'UTC')}, {actor:String}, {reason:String}",
        {**_who(erasure), "actor": erasure.actor, "reason": erasure.reason},
    )
    who = _who(erasure)
    ids = await _ids(store, who)
    for table, columns in _LISTS.items():
        sets = [f"{name} = arrayFilter(id -> NOT has({{ids:Array(String)}}, id), {name})" for name in columns]
        if table != "findings":
            sets.append("first_request_id = if(has({ids:Array(String)}, first_request_id), '', first_request_id)")
        if table == "alerts":
            sets.append(
                "attributes = mapApply((name, values) ->"
                " (name, arrayFilter(value -> value != {principal:String}, values)), attributes)"
            )
        condition = f"NOT ({_OURS}) AND ({_mentions(table, columns)})"
        if await _count(store, table, condition, {**who, **ids}):
            await _mutate(store, f"ALTER TABLE {table} UPDATE {', '.join(sets)} WHERE {condition}", {**who, **ids})
    for held in HELD:
        if await _count(store, held.name, _covered(held), who):
            await _mutate(store, f"ALTER TABLE {held.name} DELETE WHERE {_covered(held)}", who)


async def publish(
    connection: Mapping[str, Any], suffix: str, topic: Topic, erasure: Erasure
) -> dict[TopicPartition, int]:
    """Send the tombstone to every partition of a topic; returns where it stands."""
    name = named(topic, suffix)
    key = f"{erasure.tenant_id}/{erasure.principal_hash}".encode()
    places = {}
    async with AIOKafkaProducer(**connection, enable_idempotence=True) as producer:
        for partition in sorted(await producer.partitions_for(name)):
            sent = await producer.send_and_wait(
                name, encode(erasure), key=key, partition=partition, headers=list(ERASE_HEADERS)
            )
            places[TopicPartition(name, partition)] = sent.offset
    return places


async def state_keys(connection: Mapping[str, Any], suffix: str, principal: str) -> int:
    """How many keys of the lanes' checkpoints name the principal, or hold it in their value."""
    wanted, held = principal.encode(), set()
    for topic in (CHECKPOINTS, FLEET_CHECKPOINTS):
        async for record in read_to_end(connection, named(topic, suffix)):
            at = record.topic, record.partition, record.key
            if record.value is not None and (wanted in (record.key or b"") or wanted in record.value):
                held.add(at)
            else:
                held.discard(at)
    return len(held)


async def wait_for(
    connection: Mapping[str, Any], group: str, places: Mapping[TopicPartition, int], seconds: float
) -> bool:
    """Wait until a lane has done all before the tombstones; False: it has not by then."""
    async with AIOKafkaConsumer(**connection, group_id=group, enable_auto_commit=False) as consumer:
        consumer.assign(list(places))
        try:
            async with asyncio.timeout(seconds):
                while True:
                    done = {at: await consumer.committed(at) or 0 for at in places}
                    if all(done[at] > offset for at, offset in places.items()):
                        return True
                    await asyncio.sleep(0.2)
        except TimeoutError:
            return False


def erasure_of(tenant: str, principal: str, actor: str, reason: str) -> Erasure:
    """A tombstone as of now."""
    return Erasure(tenant_id=tenant, principal_hash=principal, until=datetime.now(UTC), actor=actor, reason=reason)


def _who(erasure: Erasure) -> dict[str, Any]:
    return {"tenant": erasure.tenant_id, "principal": erasure.principal_hash, "until": erasure.until}


def _covered(table: Table) -> str:
    began = BEGUN.get(table.name, "time")
    if {"has_first_event_time", "first_event_time"} <= set(table.columns):
        began = f"if(has_first_event_time, least({began}, first_event_time), {began})"
    return f"{_OURS} AND {began} < {{until:DateTime64(3, 'UTC')}}"


def _mentions(table: str, columns: Sequence[str]) -> str:
    listed = " OR ".join(f"hasAny({name}, {{ids:Array(String)}})" for name in columns)
    return listed + (" OR has(attributes['principal_hash'], {principal:String})" if table == "alerts" else "")


async def _ids(store: Store, who: Mapping[str, Any]) -> dict[str, list[str]]:
    """Ids of the principal's requests and findings that rows of anybody list."""
    lists = [(table, column) for table, columns in _LISTS.items() for column in columns]
    listed = " UNION DISTINCT ".join(f"SELECT arrayJoin({column}) FROM {table}" for table, column in lists)  # noqa: S608
    sql = " UNION DISTINCT ".join(
        f"SELECT {column} FROM {table} WHERE {_OURS} AND {column} IN ({listed})"  # noqa: S608
        for table, column in (("requests", "request_id"), ("verdicts", "request_id"), ("findings", "finding_id"))
    )
    return {"ids": [identity for (identity,) in (await store.query(sql, who)).rows]}


async def _count(store: Store, table: str, condition: str, parameters: Mapping[str, Any]) -> int:
    answer = await store.query(f"SELECT count() FROM {table} WHERE {condition}", parameters)  # noqa: S608
    return int(answer.rows[0][0])


async def _mutate(store: Store, sql: str, parameters: Mapping[str, Any]) -> None:
    await store.command(f"{sql} SETTINGS mutations_sync = 2", parameters)


def _some(counts: Mapping[str, int]) -> dict[str, int]:
    return {name: number for name, number in counts.items() if number}
