"""The tables of jobs, their attempts, counts and events."""

from typing import Any

from peewee import (
    SQL,
    AutoField,
    BigIntegerField,
    BlobField,
    BooleanField,
    CompositeKey,
    Field,
    FloatField,
    IntegerField,
    Model,
    TextField,
)

from reactorcide.domain.definition import JOB_FIELDS
from reactorcide.domain.fields import JobField
from reactorcide.store.models.fields import JSONField

# They are not null, and have no default in the database. Whatever is added later has one, for older rows.
_IN_FIRST_SCHEMA = {
    "name",
    "description",
    "job_command",
    "source_type",
    "runner_image",
    "job_env_vars",
    "queue_name",
    "timeout_seconds",
    "priority",
    "code_dir",
    "job_dir",
    "retries",
}
_COLUMNS: dict[Any, type[Field]] = {
    bool: BooleanField,
    float: FloatField,
    dict[str, str]: JSONField,
    list[str]: JSONField,
    dict[str, dict[str, Any]]: JSONField,
}


def _literal(value: Any) -> str:
    return f"'{value}'" if isinstance(value, str) else str(int(value))


def _column(item: JobField) -> Field:
    """Return the column of a field of a job's definition."""
    kind = item.about.json_type or item.type
    column = _COLUMNS.get(kind, TextField)
    if kind is int:
        column = BigIntegerField if item.name.endswith("_bytes") else IntegerField
    if item.name in _IN_FIRST_SCHEMA:
        return column()
    if item.default in (None, ()):
        return column(null=True)
    return column(constraints=[SQL(f"DEFAULT {_literal(item.default)}")])


_Definition: Any = type("DefinitionRow", (Model,), {item.name: _column(item) for item in JOB_FIELDS})


class JobRow(_Definition):  # type: ignore[misc]  # the columns of a definition come from its declaration
    """A job: its definition, and where it stands."""

    job_id = TextField(primary_key=True)
    user_id = TextField()
    rerun_of = TextField(null=True)

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
    """When a waiting job that Corndogs does not have is submitted (again)."""
    submit_failures = IntegerField()
    """Submissions in a row that Corndogs did not take."""
    task_open = BooleanField()
    """Corndogs still has a live task of this job, which is to be closed once the job is over."""
    secrets = BlobField(null=True)
    """Encrypted: what is ``[REDACTED]`` in ``job_env_vars``, ``services`` and ``git_url``."""
    log_truncated = BooleanField(constraints=[SQL("DEFAULT 0")])
    pinned = BooleanField(constraints=[SQL("DEFAULT 0")])
    stored_bytes = BigIntegerField(null=True)
    """Of its logs and artifacts, measured after its end."""
    killed_preparations = IntegerField(constraints=[SQL("DEFAULT 0")])
    previous_status = TextField(null=True)
    """What the status was before its last change: the UPDATE that changes it returns this."""
    run_id = TextField(null=True)
    node = TextField(null=True)
    outputs = BlobField(null=True)
    """Encrypted: what it has written for the jobs that need it. Read where that is asked for, alone."""
    tests = TextField(null=True)
    """How many tests of its last attempt passed, failed and were skipped, as JSON. Read by runs alone."""

    class Meta:
        table_name = "job"
        indexes = ((("created_at_ms", "job_id"), False),)


for _in_lists in (JobRow.user_id, JobRow.queue_name, JobRow.source_type, JobRow.name):
    # Each has the order of a list, see ``Lists``.
    JobRow.add_index(
        JobRow.index(_in_lists, JobRow.created_at_ms, JobRow.job_id, name=f"job_{_in_lists.column_name}")
    )
JobRow.add_index(JobRow.index(JobRow.created_at_ms, JobRow.job_id, name="job_pinned", where=SQL("pinned")))
JobRow.add_index(JobRow.index(JobRow.job_id, name="job_deleted", where=SQL("deleted")))
JobRow.add_index(JobRow.index(JobRow.job_id, JobRow.status, name="job_task_open", where=SQL("task_open")))
JobRow.add_index(
    JobRow.index(
        JobRow.status,
        JobRow.created_at_ms,
        JobRow.job_id,
        # What is asked of waiting jobs, of which there may be very many.
        JobRow.queue_name,
        JobRow.priority,
        JobRow.user_id,
        JobRow.deleted,
        name="job_status",
    )
)
JobRow.add_index(
    JobRow.index(
        JobRow.run_id,
        JobRow.created_at_ms,
        JobRow.job_id,
        JobRow.deleted,
        name="job_run",
        where=SQL("run_id IS NOT NULL"),
    )
)
JobRow.add_index(
    JobRow.index(JobRow.source_job_id, name="job_source", where=SQL("source_job_id IS NOT NULL"))
)
JobRow.add_index(
    JobRow.index(
        JobRow.completed_at_ms,
        JobRow.job_id,
        JobRow.stored_bytes,
        JobRow.deleted,
        JobRow.pinned,
        JobRow.task_open,
        JobRow.run_id,
        name="job_removable",
        where=SQL("completed_at_ms IS NOT NULL"),
    )
)


class AttemptRow(Model):
    """One run of a job; the number fences off workers that lost it."""

    job_id = TextField()
    attempt = IntegerField()
    worker_id = TextField()
    container_id = TextField(null=True)
    """Written together with ``handing_over_at_ms``."""
    claimed_at_ms = BigIntegerField()
    started_at_ms = BigIntegerField(null=True)
    completed_at_ms = BigIntegerField(null=True)
    heartbeat_at_ms = BigIntegerField()
    log_offset = BigIntegerField()
    exit_code = IntegerField(null=True)
    error = TextField(null=True)
    log_truncated = BooleanField(constraints=[SQL("DEFAULT 0")])
    handing_over_at_ms = BigIntegerField(null=True)
    container_started_at = TextField(null=True)
    caches = TextField(null=True)
    """Which caches it saves if its command succeeds, as JSON."""
    lease_token = TextField(null=True)
    """What a worker on another machine proves with that the attempt is its own; else ``NULL``."""
    lost_after_s = FloatField(null=True)
    """How long such a worker, or one of several services, goes on without being heard of."""
    end_sha256 = BlobField(null=True)
    """Which end such a worker has reported, so that a repetition is recognized."""

    class Meta:
        table_name = "attempt"
        primary_key = CompositeKey("job_id", "attempt")


AttemptRow.add_index(
    AttemptRow.index(
        AttemptRow.job_id, AttemptRow.attempt, name="attempt_open", where=SQL("completed_at_ms IS NULL")
    )
)


class JobCountRow(Model):
    """How many jobs that are not deleted have these values; see ``counts``."""

    user_id = TextField()
    queue_name = TextField()
    status = TextField()
    source_type = TextField()
    pinned = BooleanField()
    jobs = BigIntegerField()

    class Meta:
        table_name = "job_count"
        primary_key = CompositeKey("user_id", "queue_name", "status", "source_type", "pinned")
        without_rowid = True


class JobNameCountRow(Model):
    """How many jobs that are not deleted a user has under a name; see ``counts``."""

    name = TextField()
    user_id = TextField()
    jobs = BigIntegerField()

    class Meta:
        table_name = "job_name_count"
        primary_key = CompositeKey("name", "user_id")
        without_rowid = True


class JobEventRow(Model):
    """A status change; ``reason`` is the error of the job's row by then.

    An id is never given twice, which a migration sees to. Where ``run_id`` is set it is a change of a run, or
    of its ``node`` without a job; then ``job_id`` is empty.
    """

    id = AutoField()
    job_id = TextField(index=True)
    run_id = TextField(null=True)
    node = TextField(null=True)
    at_ms = BigIntegerField()
    status_from = TextField(null=True)
    status_to = TextField()
    attempt = IntegerField()
    reason = TextField(null=True)

    class Meta:
        table_name = "job_event"


JobEventRow.add_index(
    JobEventRow.index(
        JobEventRow.run_id, JobEventRow.id, name="job_event_run", where=SQL("run_id IS NOT NULL")
    )
)
