"""The tables of projects, and of named secrets."""

from peewee import SQL, BigIntegerField, BlobField, BooleanField, CompositeKey, IntegerField, Model, TextField

from reactorcide.store.models.fields import JSONField


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
    disabled = BooleanField(constraints=[SQL("DEFAULT 0")])
    forge = TextField(constraints=[SQL("DEFAULT 'none'")])
    forge_url = TextField(null=True)
    default_branch = TextField(null=True)
    default_image = TextField(null=True)
    queue = TextField(null=True)
    pull_requests = TextField(constraints=[SQL("DEFAULT 'trusted'")])
    allowed_events = JSONField(null=True)
    max_running = IntegerField(null=True)
    builder = BooleanField(constraints=[SQL("DEFAULT 0")])
    created_by = TextField(constraints=[SQL("DEFAULT ''")])
    """The id of its first owner, whose share of threads it takes; that stays, whoever owns it later."""

    class Meta:
        table_name = "project"


class ProjectCredentialRow(Model):
    """A credential of a project."""

    project_id = TextField()
    kind = TextField()
    public = TextField(null=True)
    created_at_ms = BigIntegerField()
    sealed = BlobField()
    """Encrypted: its value."""

    class Meta:
        table_name = "project_credential"
        primary_key = CompositeKey("project_id", "kind")


class ProjectMemberRow(Model):
    """The role of a user in a project."""

    project_id = TextField()
    user_id = TextField(index=True)
    role = TextField()

    class Meta:
        table_name = "project_member"
        primary_key = CompositeKey("project_id", "user_id")


class ApprovalRow(Model):
    """A member lets the code of a stranger run, at one commit."""

    project_id = TextField()
    sha = TextField()
    user_id = TextField()
    at_ms = BigIntegerField()

    class Meta:
        table_name = "approval"
        primary_key = CompositeKey("project_id", "sha")


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


class ScheduleRow(Model):
    """A schedule of a project."""

    schedule_id = TextField(primary_key=True)
    project_id = TextField()
    name = TextField()
    cron = TextField()
    timezone = TextField()
    branch = TextField(null=True)
    workflow = TextField(null=True)
    variables = JSONField()
    enabled = BooleanField()
    when_running = TextField()
    next_due_at_ms = BigIntegerField(null=True)
    reckoned_at_ms = BigIntegerField()
    created_at_ms = BigIntegerField()
    updated_at_ms = BigIntegerField()

    class Meta:
        table_name = "schedule"
        indexes = ((("project_id", "name"), True),)


class OccurrenceRow(Model):
    """What became of a due time of a schedule: there is one row for it, whoever decides."""

    schedule_id = TextField()
    due_at_ms = BigIntegerField()
    at_ms = BigIntegerField()
    outcome = TextField()
    run_ids = JSONField()

    class Meta:
        table_name = "schedule_occurrence"
        primary_key = CompositeKey("schedule_id", "due_at_ms")
