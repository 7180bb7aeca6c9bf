"""The tables of growing logs, where the data directory does not have them."""

from peewee import BigIntegerField, BlobField, CompositeKey, IntegerField, Model, TextField


class LogFileRow(Model):
    """A file of a log that is not sealed."""

    job_id = TextField()
    attempt = IntegerField()
    name = TextField()
    """``log`` or ``log.idx``."""
    writer = TextField()
    """Who has opened it last: a value of its own for each opening."""
    base_bytes = BigIntegerField()
    """How many of its first bytes are in the object under its key, and not in pieces."""
    size_bytes = BigIntegerField()

    class Meta:
        table_name = "log_file"
        primary_key = CompositeKey("job_id", "attempt", "name")


class LogPieceRow(Model):
    """Bytes of such a file."""

    job_id = TextField()
    attempt = IntegerField()
    name = TextField()
    start_at = BigIntegerField()
    """The offset of its first byte in the file."""
    data = BlobField()

    class Meta:
        table_name = "log_piece"
        primary_key = CompositeKey("job_id", "attempt", "name", "start_at")
