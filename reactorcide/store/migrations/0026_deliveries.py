"""Deliveries of forges."""

from typing import Any

from peewee import BigIntegerField, BooleanField, Model, TextField


def up(migrator: Any, db: Any) -> None:
    """Create a table."""

    class DeliveryRow(Model):
        delivery_id = TextField(primary_key=True)
        project_id = TextField()
        forge_delivery_id = TextField()
        event = TextField()
        headers = TextField()
        size_bytes = BigIntegerField()
        status = TextField()
        outcome = TextField(null=True)
        run_ids = TextField()
        created_at_ms = BigIntegerField(index=True)
        due_at_ms = BigIntegerField(null=True, index=True)
        tried_at_ms = BigIntegerField(null=True)
        is_repeated = BooleanField()
        tag_key = TextField(null=True)
        is_create = BooleanField(null=True)
        twin_id = TextField(null=True)

        class Meta:
            table_name = "delivery"
            indexes = (
                (("project_id", "forge_delivery_id"), True),
                (("project_id", "created_at_ms", "delivery_id"), False),
            )

    with db.bind_ctx([DeliveryRow]):
        db.create_tables([DeliveryRow])
