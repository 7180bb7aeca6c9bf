"""Caches of jobs, which of them a run may use, and which an attempt is to save."""

from typing import Any

from peewee import BigIntegerField, Model, TextField

_STATEMENTS = (
    "ALTER TABLE run ADD COLUMN cache_scope TEXT",
    "ALTER TABLE attempt ADD COLUMN caches TEXT",
    "CREATE UNIQUE INDEX cache_key ON cache (owner_id, repository, branch, key, paths)",
    "CREATE INDEX cache_created ON cache (created_at_ms, cache_id)",
)


def up(migrator: Any, db: Any) -> None:
    """Create a table with its indexes, and add the columns."""

    class CacheRow(Model):
        cache_id = TextField(primary_key=True)
        owner_id = TextField()
        project_id = TextField(null=True)
        user_id = TextField()
        repository = TextField()
        branch = TextField()
        key = TextField()
        paths = TextField()
        size_bytes = BigIntegerField()
        crc32 = BigIntegerField()
        job_id = TextField()
        created_at_ms = BigIntegerField()
        last_used_at_ms = BigIntegerField()

        class Meta:
            table_name = "cache"

    with db.bind_ctx([CacheRow]):
        db.create_tables([CacheRow])
    for statement in _STATEMENTS:
        db.execute_sql(statement)
