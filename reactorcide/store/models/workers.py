"""The table of workers on other machines."""

from peewee import BigIntegerField, BlobField, BooleanField, FloatField, IntegerField, Model, TextField


class WorkerRow(Model):
    """A worker on another machine: of its registration token and its secret only the SHA-256."""

    worker_id = TextField(primary_key=True)
    name = TextField(unique=True)
    queues = TextField()
    """The queues that an admin has bound it to, as a JSON list; an empty one for all."""
    registration_sha256 = BlobField(null=True, unique=True)
    """Kept after its use, so that a repeated registration is recognized."""
    registration_expires_at_ms = BigIntegerField()
    secret_sha256 = BlobField(null=True, unique=True)
    """``NULL`` until it has registered."""
    is_draining = BooleanField()
    created_at_ms = BigIntegerField()
    session_id = TextField(null=True)
    host = TextField()
    version = TextField()
    protocol = IntegerField()
    concurrency = IntegerField()
    served_queues = TextField()
    """The queues that it asks for, as a JSON list; an empty one for all that it is bound to."""
    trouble = TextField(null=True)
    warm_containers = IntegerField()
    last_seen_at_ms = BigIntegerField(null=True)
    lost_after_s = FloatField()

    class Meta:
        table_name = "worker"
