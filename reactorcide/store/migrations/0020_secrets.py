"""Named secrets of the service and of projects, and where they are used."""

from typing import Any

from peewee import BigIntegerField, BlobField, CompositeKey, Model, TextField


def up(migrator: Any, db: Any) -> None:
    """Create two tables."""

    class NamedSecretRow(Model):
        project_id = TextField()
        name = TextField()
        events = TextField(null=True)
        branches = TextField(null=True)
        workflows = TextField(null=True)
        projects = TextField(null=True)
        created_at_ms = BigIntegerField()
        updated_at_ms = BigIntegerField()
        sealed = BlobField()

        class Meta:
            table_name = "named_secret"
            primary_key = CompositeKey("project_id", "name")

    class SecretUseRow(Model):
        secret_of = TextField()
        name = TextField()
        project_id = TextField()
        workflow_id = TextField()
        run_id = TextField()
        used_at_ms = BigIntegerField()

        class Meta:
            table_name = "secret_use"
            primary_key = CompositeKey("secret_of", "name", "project_id", "workflow_id")

    tables = [NamedSecretRow, SecretUseRow]
    with db.bind_ctx(tables):
        db.create_tables(tables)
