"""The table of deliveries."""

from peewee import BigIntegerField, BooleanField, Model, TextField

from reactorcide.store.models.fields import JSONField


class DeliveryRow(Model):
    """A delivery of a forge."""

    delivery_id = TextField(primary_key=True)
    project_id = TextField()
    forge_delivery_id = TextField()
    event = TextField()
    headers = JSONField()
    size_bytes = BigIntegerField()
    status = TextField()
    outcome = TextField(null=True)
    run_ids = JSONField()
    created_at_ms = BigIntegerField(index=True)
    due_at_ms = BigIntegerField(null=True, index=True)
    tried_at_ms = BigIntegerField(null=True)
    is_repeated = BooleanField()
    tag_key = TextField(null=True)
    is_create = BooleanField(null=True)
    twin_id = TextField(null=True)
    """The delivery that had told of the same tag before."""

    class Meta:
        table_name = "delivery"
        indexes = (
            (("project_id", "forge_delivery_id"), True),
            (("project_id", "created_at_ms", "delivery_id"), False),
        )
