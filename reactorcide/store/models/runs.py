"""The tables of runs, their nodes, and the caches of their jobs."""

from peewee import SQL, BigIntegerField, BlobField, BooleanField, CompositeKey, IntegerField, Model, TextField

from reactorcide.store.models.fields import JSONField


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
    is_trusted = BooleanField(constraints=[SQL("DEFAULT 1")])
    is_held = BooleanField(constraints=[SQL("DEFAULT 0")])
    status_context = TextField(null=True)
    waits_for_room = BooleanField(constraints=[SQL("DEFAULT 0")])

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


RunRow.add_index(RunRow.index(RunRow.project_id, RunRow.sha, name="run_held", where=SQL("is_held")))


RunRow.add_index(
    RunRow.index(
        RunRow.project_id,
        RunRow.turn,
        RunRow.waits_for_room,
        RunRow.run_id,
        name="run_project_open",
        where=SQL("completed_at_ms IS NULL"),
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
