"""The forge, the rules and the credentials of a project."""

from typing import Any

from peewee import BigIntegerField, BlobField, CompositeKey, Model, TextField

_COLUMNS = (
    "disabled INTEGER NOT NULL DEFAULT 0",
    "forge TEXT NOT NULL DEFAULT 'none'",
    "forge_url TEXT",
    "default_branch TEXT",
    "default_image TEXT",
    "queue TEXT",
    "pull_requests TEXT NOT NULL DEFAULT 'trusted'",
    "allowed_events TEXT",
    "max_running INTEGER",
)


def up(migrator: Any, db: Any) -> None:
    """Add columns and a table."""

    class ProjectCredentialRow(Model):
        project_id = TextField()
        kind = TextField()
        public = TextField(null=True)
        created_at_ms = BigIntegerField()
        sealed = BlobField()

        class Meta:
            table_name = "project_credential"
            primary_key = CompositeKey("project_id", "kind")

    with db.bind_ctx([ProjectCredentialRow]):
        db.create_tables([ProjectCredentialRow])
    for column in _COLUMNS:
        db.execute_sql(f"ALTER TABLE project ADD COLUMN {column}")
