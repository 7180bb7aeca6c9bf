"""Sessions of the web page, and one-time links to sign in by."""

from typing import Any

from peewee import BigIntegerField, BlobField, BooleanField, Model, TextField


def up(migrator: Any, db: Any) -> None:
    """Create a table."""

    class SessionRow(Model):
        session_sha256 = BlobField(primary_key=True)
        token_id = TextField(index=True)
        is_link = BooleanField()
        created_at_ms = BigIntegerField()
        expires_at_ms = BigIntegerField(index=True)

        class Meta:
            table_name = "session"

    with db.bind_ctx([SessionRow]):
        db.create_tables([SessionRow])
