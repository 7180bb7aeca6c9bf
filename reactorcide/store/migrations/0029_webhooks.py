"""Webhooks, their messages, and which workflows fail."""

from typing import Any

from peewee import BigIntegerField, BlobField, CompositeKey, IntegerField, Model, TextField

_INDEXES = (
    "CREATE INDEX webhook_message_created ON webhook_message (webhook_id, created_at_ms, message_id)",
    "CREATE INDEX webhook_message_owed ON webhook_message (webhook_id, next_at_ms) "
    "WHERE next_at_ms IS NOT NULL",
)


def up(migrator: Any, db: Any) -> None:
    """Create four tables."""

    class WebhookRow(Model):
        webhook_id = TextField(primary_key=True)
        user_id = TextField(index=True)
        url = TextField()
        events = TextField()
        project_ids = TextField(null=True)
        created_at_ms = BigIntegerField()
        sealed = BlobField()

        class Meta:
            table_name = "webhook"

    class WebhookMessageRow(Model):
        message_id = TextField(primary_key=True)
        webhook_id = TextField()
        type = TextField()
        body = TextField()
        created_at_ms = BigIntegerField()
        version = IntegerField()
        owed_since_ms = BigIntegerField(null=True)
        next_at_ms = BigIntegerField(null=True)
        failures = IntegerField()
        problem = TextField(null=True)
        sent_at_ms = BigIntegerField(null=True)

        class Meta:
            table_name = "webhook_message"

    class WebhookCursorRow(Model):
        name = TextField(primary_key=True)
        event_id = BigIntegerField()

        class Meta:
            table_name = "webhook_cursor"

    class FailingWorkflowRow(Model):
        project_id = TextField()
        workflow_id = TextField()
        branch = TextField()
        event_name = TextField()
        turn = IntegerField()

        class Meta:
            table_name = "failing_workflow"
            primary_key = CompositeKey("project_id", "workflow_id", "branch", "event_name")

    tables = [WebhookRow, WebhookMessageRow, WebhookCursorRow, FailingWorkflowRow]
    with db.bind_ctx(tables):
        db.create_tables(tables)
    for statement in _INDEXES:
        db.execute_sql(statement)
