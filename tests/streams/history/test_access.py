"""deploy/clickhouse/access.sql: the engine parses it, and every granted table is behind both row policies.

The embedded engine has no users, roles or policies (it answers 497), so what the file does can only be tried on
a server: grant a user `pointsman_tenant`, and `SELECT count() FROM requests` as that user.
"""

import re
from pathlib import Path

from schemas.clickhouse import tables
from streams.store import Store

ACCESS = Path(__file__).parents[3] / "deploy" / "clickhouse" / "access.sql"


def statements() -> list[str]:
    text = "\n".join(line for line in ACCESS.read_text().splitlines() if not line.startswith("--"))
    return [statement.strip() for statement in text.split(";") if statement.strip()]


async def test_the_engine_parses_every_statement(store: Store) -> None:
    for statement in statements():
        answer = await store.query(f"EXPLAIN AST {statement}")
        assert answer.rows, statement


def test_every_table_that_a_tenant_may_read_shows_it_only_its_own() -> None:
    text = ACCESS.read_text()
    granted = set(re.findall(r"GRANT SELECT ON (\w+) TO pointsman_tenant", text))
    policies = [set(found.replace(",", " ").split()) for found in re.findall(r"\nON ([\w, ]+)\nUSING", text)]
    assert granted
    assert policies == [granted, granted]
    by_name = {table.name: table for table in vars(tables).values() if isinstance(table, tables.Table)}
    for name in granted:
        assert "tenant_id" in by_name[name].columns
