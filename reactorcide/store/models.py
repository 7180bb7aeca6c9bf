"""The tables. Nothing outside this package sees a row: queries answer with dataclasses.

The models belong to no database; each query is executed on the one it is given, so that two
services can live in one process. Times are Unix milliseconds. A change here needs a migration.
"""

import json
from dataclasses import asdict
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


class JSONField(TextField):
    """A JSON value kept as text."""

    def db_value(self, value: Any) -> str | None:
        """Return what is stored."""
        return None if value is None else json.dumps(value, separators=(",", ":"), default=asdict)

    def python_value(self, value: str | None) -> Any:
        """Return what was put in."""
        return None if value is None else json.loads(value)


class InstanceRow(Model):
    """One row: the identity of this installation, carried by its tasks and containers."""

    instance_id = TextField(primary_key=True)
    secret_key_sha256 = BlobField(null=True)
    """Which key encrypts what is secret; see ``Vault.fingerprint``."""

    class Meta:
        table_name = "instance"


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


class RunRow(Model):
    """A run of a workflow."""

    run_id = TextField(primary_key=True)
    user_id = TextField()
    project_id = TextField(null=True)
    number = IntegerField()
    attempt = IntegerField()
    workflow_id = TextField()
    workflow_name = TextField()
    file = TextField()
    event_name = TextField()
    branch = TextField()
    event = JSONField()
    git_url = TextField(null=True)
    """Without credentials; ``sealed`` has them."""
    git_ref = TextField(null=True)
    source_id = TextField(null=True)
    sha = TextField(null=True)
    status = TextField()
    reason = TextField(null=True)
    warnings = JSONField(null=True)
    cache_scope = JSONField(null=True)
    """Which caches its jobs may use; null for a run of an older version."""
    created_at_ms = BigIntegerField()
    updated_at_ms = BigIntegerField()
    completed_at_ms = BigIntegerField(null=True)
    sealed = BlobField()
    """Encrypted: the URL as it was given, and the workflow's files."""
    turn = IntegerField(constraints=[SQL("DEFAULT 0")])
    pinned = BooleanField(constraints=[SQL("DEFAULT 0")])
    group_key = TextField(null=True)
    when_full = TextField(null=True)

    class Meta:
        table_name = "run"


RunRow.add_index(RunRow.index(RunRow.created_at_ms, RunRow.run_id, name="run_created"))
RunRow.add_index(RunRow.index(RunRow.user_id, RunRow.created_at_ms, RunRow.run_id, name="run_user"))
RunRow.add_index(
    RunRow.index(
        RunRow.user_id, RunRow.number, unique=True, name="run_number", where=SQL("project_id IS NULL")
    )
)
RunRow.add_index(
    RunRow.index(
        RunRow.project_id,
        RunRow.number,
        unique=True,
        name="run_project_number",
        where=SQL("project_id IS NOT NULL"),
    )
)
RunRow.add_index(
    RunRow.index(
        RunRow.project_id,
        RunRow.created_at_ms,
        RunRow.run_id,
        name="run_project",
        where=SQL("project_id IS NOT NULL"),
    )
)
RunRow.add_index(
    RunRow.index(RunRow.updated_at_ms, RunRow.run_id, name="run_open", where=SQL("completed_at_ms IS NULL"))
)
RunRow.add_index(RunRow.index(RunRow.turn, name="run_turn"))
RunRow.add_index(
    RunRow.index(
        RunRow.user_id,
        RunRow.project_id,
        RunRow.workflow_id,
        RunRow.branch,
        RunRow.event_name,
        RunRow.status,
        name="run_counted",
    )
)
RunRow.add_index(
    RunRow.index(
        RunRow.group_key,
        RunRow.status,
        RunRow.turn,
        RunRow.run_id,
        name="run_group",
        where=SQL("group_key IS NOT NULL"),
    )
)
# A group has one place.
RunRow.add_index(
    RunRow.index(
        RunRow.group_key,
        unique=True,
        name="run_place",
        where=SQL("group_key IS NOT NULL AND status = 'running'"),
    )
)


class NodeRow(Model):
    """A node of a run's graph."""

    run_id = TextField()
    name = TextField()
    position = IntegerField()
    """In the order of the graph: after those that it needs."""
    job_name = TextField()
    needs = JSONField()
    condition = TextField()
    allow_failure = BooleanField()
    max_parallel = IntegerField(null=True)
    combination = JSONField()
    skipped = TextField(null=True)
    state = TextField()
    reason = TextField(null=True)
    job_id = TextField(null=True)
    jobs = IntegerField()
    sealed = BlobField()
    """Encrypted: the definition of its job."""
    group_key = TextField(null=True)
    when_full = TextField(null=True)
    is_held = BooleanField(constraints=[SQL("DEFAULT 0")])

    class Meta:
        table_name = "node"
        primary_key = CompositeKey("run_id", "name")


NodeRow.add_index(
    NodeRow.index(NodeRow.group_key, NodeRow.state, name="node_group", where=SQL("group_key IS NOT NULL"))
)
# As of runs.
NodeRow.add_index(
    NodeRow.index(
        NodeRow.group_key,
        unique=True,
        name="node_place",
        where=SQL("group_key IS NOT NULL AND state = 'active'"),
    )
)


class ProjectRow(Model):
    """A project."""

    project_id = TextField(primary_key=True)
    name = TextField(unique=True)
    git_url = TextField()
    """Without credentials; ``sealed`` has them."""
    visibility = TextField()
    last_run_number = IntegerField()
    created_at_ms = BigIntegerField()
    updated_at_ms = BigIntegerField()
    sealed = BlobField()
    """Encrypted: the URL as it was given."""

    class Meta:
        table_name = "project"


class ProjectMemberRow(Model):
    """The role of a user in a project."""

    project_id = TextField()
    user_id = TextField(index=True)
    role = TextField()

    class Meta:
        table_name = "project_member"
        primary_key = CompositeKey("project_id", "user_id")


class NamedSecretRow(Model):
    """A named secret of a project; of the service where ``project_id`` is empty."""

    project_id = TextField()
    name = TextField()
    events = JSONField(null=True)
    branches = JSONField(null=True)
    workflows = JSONField(null=True)
    projects = JSONField(null=True)
    """The ids of the projects that may use one of the service."""
    created_at_ms = BigIntegerField()
    updated_at_ms = BigIntegerField()
    sealed = BlobField()
    """Encrypted: its value."""

    class Meta:
        table_name = "named_secret"
        primary_key = CompositeKey("project_id", "name")


class SecretUseRow(Model):
    """The last run of a workflow that used a named secret."""

    secret_of = TextField()
    """The ``project_id`` of the secret."""
    name = TextField()
    project_id = TextField()
    workflow_id = TextField()
    run_id = TextField()
    used_at_ms = BigIntegerField()

    class Meta:
        table_name = "secret_use"
        primary_key = CompositeKey("secret_of", "name", "project_id", "workflow_id")


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


class CacheRow(Model):
    """A cache that a job of a run has left."""

    cache_id = TextField(primary_key=True)
    owner_id = TextField()
    """Of its project, or of its user if it has none."""
    project_id = TextField(null=True)
    user_id = TextField()
    repository = TextField()
    branch = TextField()
    key = TextField()
    paths = TextField()
    """JSON, as the job has named them: a cache is restored to the same paths only."""
    size_bytes = BigIntegerField()
    crc32 = BigIntegerField()
    job_id = TextField()
    created_at_ms = BigIntegerField()
    last_used_at_ms = BigIntegerField()

    class Meta:
        table_name = "cache"


CacheRow.add_index(
    CacheRow.index(
        CacheRow.owner_id,
        CacheRow.repository,
        CacheRow.branch,
        CacheRow.key,
        CacheRow.paths,
        unique=True,
        name="cache_key",
    )
)
CacheRow.add_index(CacheRow.index(CacheRow.created_at_ms, CacheRow.cache_id, name="cache_created"))


class PulledImageRow(Model):
    """An image that was pulled for a job, and when one last used it."""

    image = TextField(primary_key=True)
    image_id = TextField()
    pulled_at_ms = BigIntegerField()
    last_used_at_ms = BigIntegerField()

    class Meta:
        table_name = "pulled_image"


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


ALL_MODELS = (
    InstanceRow,
    UserRow,
    TokenRow,
    InvitationRow,
    JobRow,
    AttemptRow,
    JobCountRow,
    JobNameCountRow,
    JobEventRow,
    RunRow,
    NodeRow,
    ProjectRow,
    ProjectMemberRow,
    NamedSecretRow,
    SecretUseRow,
    SourceRow,
    SourceOwnerRow,
    CacheRow,
    PulledImageRow,
    IdempotencyRow,
    AuditRow,
)
