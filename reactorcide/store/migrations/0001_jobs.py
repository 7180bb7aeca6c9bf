"""The first schema: users and tokens, jobs with their attempts and status changes.

The models are a frozen copy: a migration means the same whatever the program's models become.
"""

from typing import Any

from peewee import (
    BigIntegerField,
    BlobField,
    BooleanField,
    CompositeKey,
    FloatField,
    IntegerField,
    Model,
    TextField,
)


def up(migrator: Any, db: Any) -> None:
    """Create all tables."""

    class InstanceRow(Model):
        instance_id = TextField(primary_key=True)

        class Meta:
            table_name = "instance"

    class UserRow(Model):
        user_id = TextField(primary_key=True)
        username = TextField(unique=True)
        email = TextField(null=True)
        role = TextField()
        is_active = BooleanField()
        created_at_ms = BigIntegerField()

        class Meta:
            table_name = "user"

    class TokenRow(Model):
        token_id = TextField(primary_key=True)
        user_id = TextField(index=True)
        name = TextField()
        token_sha256 = BlobField(unique=True)
        created_at_ms = BigIntegerField()
        expires_at_ms = BigIntegerField(null=True)
        last_used_at_ms = BigIntegerField(null=True)
        is_active = BooleanField()

        class Meta:
            table_name = "token"

    class JobRow(Model):
        job_id = TextField(primary_key=True)
        user_id = TextField()
        rerun_of = TextField(null=True)

        name = TextField()
        description = TextField()
        job_command = TextField()
        source_type = TextField()
        git_url = TextField(null=True)
        git_ref = TextField(null=True)
        source_path = TextField(null=True)
        runner_image = TextField()
        job_env_vars = TextField()
        queue_name = TextField()
        timeout_seconds = IntegerField()
        priority = IntegerField()
        code_dir = TextField()
        job_dir = TextField()
        cpu_limit = FloatField(null=True)
        memory_limit_bytes = BigIntegerField(null=True)
        retries = IntegerField()

        status = TextField()
        created_at_ms = BigIntegerField()
        updated_at_ms = BigIntegerField()
        queued_at_ms = BigIntegerField(null=True)
        started_at_ms = BigIntegerField(null=True)
        completed_at_ms = BigIntegerField(null=True)
        exit_code = IntegerField(null=True)
        error = TextField(null=True)
        attempt = IntegerField()
        worker_id = TextField(null=True)
        corndogs_task_id = TextField(null=True)
        logs_object_key = TextField(null=True)
        artifacts_object_key = TextField(null=True)
        retries_used = IntegerField()
        preparation_failures = IntegerField()

        deleted = BooleanField()
        next_submit_at_ms = BigIntegerField()
        submit_failures = IntegerField()
        task_open = BooleanField()

        class Meta:
            table_name = "job"
            indexes = (
                (("created_at_ms", "job_id"), False),
                (("user_id", "created_at_ms", "job_id"), False),
                (("status", "queue_name"), False),
                (("task_open", "status"), False),
                (("deleted",), False),
            )

    class AttemptRow(Model):
        job_id = TextField()
        attempt = IntegerField()
        worker_id = TextField()
        container_id = TextField(null=True)
        claimed_at_ms = BigIntegerField()
        started_at_ms = BigIntegerField(null=True)
        completed_at_ms = BigIntegerField(null=True)
        heartbeat_at_ms = BigIntegerField()
        log_offset = BigIntegerField()
        exit_code = IntegerField(null=True)
        error = TextField(null=True)

        class Meta:
            table_name = "attempt"
            primary_key = CompositeKey("job_id", "attempt")

    class JobEventRow(Model):
        job_id = TextField(index=True)
        at_ms = BigIntegerField()
        status_from = TextField(null=True)
        status_to = TextField()
        attempt = IntegerField()
        reason = TextField(null=True)

        class Meta:
            table_name = "job_event"

    tables = [InstanceRow, UserRow, TokenRow, JobRow, AttemptRow, JobEventRow]
    with db.bind_ctx(tables):
        db.create_tables(tables)
