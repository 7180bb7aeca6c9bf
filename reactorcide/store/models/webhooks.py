"""The tables of webhooks."""

from peewee import SQL, BigIntegerField, BlobField, CompositeKey, IntegerField, Model, TextField

from reactorcide.store.models.fields import JSONField


class WebhookRow(Model):
    """An address that is told of runs and jobs."""

    webhook_id = TextField(primary_key=True)
    user_id = TextField(index=True)
    url = TextField()
    events = JSONField()
    project_ids = JSONField(null=True)
    """Null: all projects."""
    created_at_ms = BigIntegerField()
    sealed = BlobField()
    """Encrypted: its secret."""
    disabled_at_ms = BigIntegerField(null=True)
    renewed_at_ms = BigIntegerField(null=True)
    """When it got another secret."""
    previous_sealed = BlobField(null=True)
    """Encrypted: the secret before."""

    class Meta:
        table_name = "webhook"


class WebhookMessageRow(Model):
    """What a webhook was told, or is to be told."""

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


WebhookMessageRow.add_index(
    WebhookMessageRow.index(
        WebhookMessageRow.webhook_id,
        WebhookMessageRow.created_at_ms,
        WebhookMessageRow.message_id,
        name="webhook_message_created",
    )
)
WebhookMessageRow.add_index(
    WebhookMessageRow.index(
        WebhookMessageRow.webhook_id,
        WebhookMessageRow.next_at_ms,
        name="webhook_message_owed",
        where=SQL("next_at_ms IS NOT NULL"),
    )
)


class WebhookCursorRow(Model):
    """Up to which status change webhooks were told."""

    name = TextField(primary_key=True)
    event_id = BigIntegerField()

    class Meta:
        table_name = "webhook_cursor"


class FailingWorkflowRow(Model):
    """A workflow whose newest run for a branch and a kind of event has failed."""

    project_id = TextField()
    workflow_id = TextField()
    branch = TextField()
    event_name = TextField()
    turn = IntegerField()

    class Meta:
        table_name = "failing_workflow"
        primary_key = CompositeKey("project_id", "workflow_id", "branch", "event_name")
