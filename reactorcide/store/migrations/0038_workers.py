"""Workers on other machines, and the leases of their attempts."""

from typing import Any

from peewee import BigIntegerField, BlobField, BooleanField, FloatField, IntegerField, Model, TextField

_COLUMNS = ("lease_token TEXT", "lost_after_s REAL", "end_sha256 BLOB")


def up(migrator: Any, db: Any) -> None:
    """Create a table, and add columns to the attempts."""

    class WorkerRow(Model):
        worker_id = TextField(primary_key=True)
        name = TextField(unique=True)
        queues = TextField()
        registration_sha256 = BlobField(null=True, unique=True)
        registration_expires_at_ms = BigIntegerField()
        secret_sha256 = BlobField(null=True, unique=True)
        is_draining = BooleanField()
        created_at_ms = BigIntegerField()
        session_id = TextField(null=True)
        host = TextField()
        version = TextField()
        protocol = IntegerField()
        concurrency = IntegerField()
        served_queues = TextField()
        trouble = TextField(null=True)
        warm_containers = IntegerField()
        last_seen_at_ms = BigIntegerField(null=True)
        lost_after_s = FloatField()

        class Meta:
            table_name = "worker"

    with db.bind_ctx([WorkerRow]):
        db.create_tables([WorkerRow])
    for column in _COLUMNS:
        db.execute_sql(f"ALTER TABLE attempt ADD COLUMN {column}")
