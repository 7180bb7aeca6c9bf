"""Uploaded sources, and which artifacts a job keeps."""

from typing import Any

from peewee import BigIntegerField, CompositeKey, IntegerField, Model, TextField


def up(migrator: Any, db: Any) -> None:
    """Add two tables, and to a job what it may name, and find jobs by what they name."""

    class SourceRow(Model):
        source_id = TextField(primary_key=True)
        object_key = TextField()
        size_bytes = BigIntegerField()
        files = IntegerField()
        last_used_at_ms = BigIntegerField()

        class Meta:
            table_name = "source"

    class SourceOwnerRow(Model):
        source_id = TextField()
        user_id = TextField()

        class Meta:
            table_name = "source_owner"
            primary_key = CompositeKey("source_id", "user_id")

    tables = [SourceRow, SourceOwnerRow]
    with db.bind_ctx(tables):
        db.create_tables(tables)
    for column in ("artifacts", "source_job_id", "source_id"):
        migrator.migrate(migrator.add_column("job", column, TextField(null=True)))
    db.execute_sql("CREATE INDEX job_source ON job (source_job_id) WHERE source_job_id IS NOT NULL")
