"""The tables of what is to be sent to others."""

from peewee import SQL, BigIntegerField, BlobField, BooleanField, CompositeKey, IntegerField, Model, TextField


class CommitStatusRow(Model):
    """A commit status: what a forge is to be told, and what it was told last."""

    status_id = TextField(primary_key=True)
    project_id = TextField()
    sha = TextField()
    context = TextField()
    state = TextField()
    description = TextField()
    run_id = TextField()
    turn = IntegerField()
    created_at_ms = BigIntegerField()
    version = IntegerField()
    owed_since_ms = BigIntegerField(null=True)
    next_at_ms = BigIntegerField(null=True)
    failures = IntegerField()
    problem = TextField(null=True)
    sent_state = TextField(null=True)
    sent_description = TextField(null=True)
    sent_at_ms = BigIntegerField(null=True)
    unanswered_at_ms = BigIntegerField(null=True)
    """When a request was last not answered, which may arrive late."""

    class Meta:
        table_name = "commit_status"


CommitStatusRow.add_index(
    CommitStatusRow.index(
        CommitStatusRow.project_id,
        CommitStatusRow.sha,
        CommitStatusRow.context,
        unique=True,
        name="commit_status_context",
    )
)
CommitStatusRow.add_index(
    CommitStatusRow.index(
        CommitStatusRow.project_id,
        CommitStatusRow.created_at_ms,
        CommitStatusRow.status_id,
        name="commit_status_created",
    )
)
CommitStatusRow.add_index(
    CommitStatusRow.index(
        CommitStatusRow.project_id,
        CommitStatusRow.next_at_ms,
        name="commit_status_owed",
        where=SQL("next_at_ms IS NOT NULL"),
    )
)


class OutboxLaneRow(Model):
    """What is sent one after the other, such as the statuses of a project."""

    kind = TextField()
    owner_id = TextField()
    next_at_ms = BigIntegerField(null=True)
    """When something may be sent; null: nothing is to be sent."""
    is_paused = BooleanField()
    """Nothing is sent before then, also nothing new."""
    failures = IntegerField()
    resumed = IntegerField()
    problem = TextField(null=True)
    sealed = BlobField(null=True)
    """Encrypted: where to send it, once its owner was removed."""

    class Meta:
        table_name = "outbox_lane"
        primary_key = CompositeKey("kind", "owner_id")


OutboxLaneRow.add_index(
    OutboxLaneRow.index(OutboxLaneRow.next_at_ms, name="outbox_lane_due", where=SQL("next_at_ms IS NOT NULL"))
)
