"""Invitations, scopes of tokens, idempotency keys, and the audit."""

from typing import Any

from peewee import AutoField, BigIntegerField, BlobField, CompositeKey, Model, TextField

_COLUMNS = (
    "ALTER TABLE token ADD COLUMN scopes TEXT",
    "ALTER TABLE job ADD COLUMN token_id TEXT",
    "ALTER TABLE job ADD COLUMN address TEXT",
    "ALTER TABLE job ADD COLUMN request_id TEXT",
)

_TRIGGERS = (
    # By the database itself: a submission stays one statement, and none can go without.
    """
    CREATE TRIGGER job_audited AFTER INSERT ON job BEGIN
        INSERT INTO audit (at_ms, user_id, token_id, address, request_id, action, subject)
        VALUES (
            NEW.created_at_ms, NEW.user_id, NEW.token_id, NEW.address, NEW.request_id,
            CASE WHEN NEW.rerun_of IS NULL THEN 'job.submit' ELSE 'job.rerun' END, NEW.job_id
        );
    END
    """,
    """
    CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit BEGIN
        SELECT RAISE(ABORT, 'the audit is only ever added to');
    END
    """,
    """
    CREATE TRIGGER audit_is_not_removed BEFORE DELETE ON audit BEGIN
        SELECT RAISE(ABORT, 'the audit is only ever added to');
    END
    """,
)


def up(migrator: Any, db: Any) -> None:
    """Create the tables and triggers, and add the columns."""

    class InvitationRow(Model):
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
        user_id = TextField()
        key = TextField()
        body_mac = BlobField()
        job_id = TextField()
        created_at_ms = BigIntegerField(index=True)

        class Meta:
            table_name = "idempotency_key"
            primary_key = CompositeKey("user_id", "key")

    class AuditRow(Model):
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

    tables = [InvitationRow, IdempotencyRow, AuditRow]
    with db.bind_ctx(tables):
        db.create_tables(tables)
    for statement in (*_COLUMNS, *_TRIGGERS):
        db.execute_sql(statement)
