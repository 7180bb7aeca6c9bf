"""The tables of the service itself: its identity, uploaded sources, pulled images."""

from peewee import SQL, BigIntegerField, BlobField, CompositeKey, IntegerField, Model, TextField


class InstanceRow(Model):
    """One row: the identity of this installation, carried by its tasks and containers."""

    instance_id = TextField(primary_key=True)
    secret_key_sha256 = BlobField(null=True)
    """Which key encrypts what is secret; see ``Vault.fingerprint``."""
    run_numbers_skipped_up_to = IntegerField(constraints=[SQL("DEFAULT 0")])
    """The runs of no project have numbers above it."""
    objects_url = TextField(null=True)
    """The bucket of its objects, like ``s3://bucket/prefix``; ``NULL`` for the data directory."""

    class Meta:
        table_name = "instance"


class SourceRow(Model):
    """An uploaded source, by the SHA-256 of its bytes."""

    source_id = TextField(primary_key=True)
    object_key = TextField()
    size_bytes = BigIntegerField()
    files = IntegerField()
    last_used_at_ms = BigIntegerField()

    class Meta:
        table_name = "source"


class SourceOwnerRow(Model):
    """Who has uploaded a source, and so may use it."""

    source_id = TextField()
    user_id = TextField()
    last_used_at_ms = BigIntegerField(constraints=[SQL("DEFAULT 0")])

    class Meta:
        table_name = "source_owner"
        primary_key = CompositeKey("source_id", "user_id")


class PulledImageRow(Model):
    """An image that was pulled for a job, and when one last used it."""

    engine = TextField()
    """The worker whose engine has it, if several services share the database; else empty."""
    image = TextField()
    image_id = TextField()
    pulled_at_ms = BigIntegerField()
    last_used_at_ms = BigIntegerField()

    class Meta:
        table_name = "pulled_image"
        primary_key = CompositeKey("engine", "image")
