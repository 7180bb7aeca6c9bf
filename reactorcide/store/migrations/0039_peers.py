"""Services that share a database."""

from typing import Any

from peewee import BigIntegerField, CompositeKey, FloatField, Model, TextField


def up(migrator: Any, db: Any) -> None:
    """Create the tables; where one service has the database for itself they stay empty."""

    class PeerRow(Model):
        service_id = TextField(primary_key=True)
        session_id = TextField()
        host = TextField()
        version = TextField()
        corndogs_address = TextField(null=True)
        beat = BigIntegerField()
        worker = TextField()

        class Meta:
            table_name = "peer"

    class TurnRow(Model):
        kind = TextField()
        key = TextField()
        service_id = TextField()

        class Meta:
            table_name = "turn"
            primary_key = CompositeKey("kind", "key")

    class BadTokenRow(Model):
        network = TextField(primary_key=True)
        remaining = FloatField()
        at_ms = BigIntegerField()

        class Meta:
            table_name = "bad_token"

    models = [PeerRow, TurnRow, BadTokenRow]
    with db.bind_ctx(models):
        db.create_tables(models)
