"""The tables of the services that share a database; empty where one has it for itself."""

from peewee import BigIntegerField, CompositeKey, FloatField, Model, TextField


class PeerRow(Model):
    """A service that works on this database."""

    service_id = TextField(primary_key=True)
    session_id = TextField()
    host = TextField()
    version = TextField()
    corndogs_address = TextField(null=True)
    """``NULL`` for an embedded queue, which no other service can have."""
    beat = BigIntegerField()
    worker = TextField()
    """What its own worker reports, as JSON."""

    class Meta:
        table_name = "peer"


class TurnRow(Model):
    """Work that a service does just now, so that no other does."""

    kind = TextField()
    key = TextField()
    service_id = TextField()

    class Meta:
        table_name = "turn"
        primary_key = CompositeKey("kind", "key")


class BadTokenRow(Model):
    """How many bad tokens a network may send at once, reckoned at a time."""

    network = TextField(primary_key=True)
    remaining = FloatField()
    at_ms = BigIntegerField()

    class Meta:
        table_name = "bad_token"
