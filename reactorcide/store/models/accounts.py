"""The tables of users, and of what they have done."""

from peewee import AutoField, BigIntegerField, BlobField, BooleanField, CompositeKey, Model, TextField


class UserRow(Model):
    """A user."""

    user_id = TextField(primary_key=True)
    username = TextField(unique=True)
    email = TextField(null=True)
    role = TextField()
    is_active = BooleanField()
    created_at_ms = BigIntegerField()

    class Meta:
        table_name = "user"


class TokenRow(Model):
    """A bearer token: of its value only the SHA-256."""

    token_id = TextField(primary_key=True)
    user_id = TextField(index=True)
    name = TextField()
    token_sha256 = BlobField(unique=True)
    created_at_ms = BigIntegerField()
    expires_at_ms = BigIntegerField(null=True)
    last_used_at_ms = BigIntegerField(null=True)
    is_active = BooleanField()
    scopes = TextField(null=True)
    """Separated by spaces; null: whatever its user may."""

    class Meta:
        table_name = "token"


class SessionRow(Model):
    """A session of the web page: of its value only the SHA-256."""

    session_sha256 = BlobField(primary_key=True)
    token_id = TextField(index=True)
    """What the session may do, and when it ends at the latest."""
    is_link = BooleanField()
    """It is a one-time link that nobody has used yet."""
    created_at_ms = BigIntegerField()
    expires_at_ms = BigIntegerField(index=True)

    class Meta:
        table_name = "session"


class InvitationRow(Model):
    """The right to become a user, once: of its value only the SHA-256."""

    invitation_id = TextField(primary_key=True)
    invitation_sha256 = BlobField(unique=True)
    role = TextField()
    email = TextField(null=True)
    created_by = TextField(null=True)
    created_at_ms = BigIntegerField()
    expires_at_ms = BigIntegerField()
    used_at_ms = BigIntegerField(null=True)
    used_by = TextField(null=True)

    class Meta:
        table_name = "invitation"


class IdempotencyRow(Model):
    """Which job a user's idempotency key has made, and of which request."""

    user_id = TextField()
    key = TextField()
    body_mac = BlobField()
    """See ``Vault.mac``: whoever has only the database can't try what secrets the body may have had."""
    job_id = TextField()
    created_at_ms = BigIntegerField(index=True)

    class Meta:
        table_name = "idempotency_key"
        primary_key = CompositeKey("user_id", "key")


class AuditRow(Model):
    """Something that somebody did. Triggers refuse to change or remove it.

    It has no further index: it is written at every submission and seldom read.
    """

    audit_id = AutoField()
    at_ms = BigIntegerField()
    user_id = TextField()
    token_id = TextField(null=True)
    address = TextField(null=True)
    request_id = TextField(null=True)
    action = TextField()
    subject = TextField()

    class Meta:
        table_name = "audit"
