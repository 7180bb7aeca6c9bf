"""Counts of jobs, and the indexes that lists are read from.

``job.previous_status`` is what the status was before its last change: the UPDATE that changes a status
returns it, so that event and counts are right without another query.
"""

from typing import Any

from peewee import BigIntegerField, BooleanField, CompositeKey, Model, TextField

_KEY = "user_id, queue_name, status, source_type, pinned"
_STATEMENTS = (
    "ALTER TABLE job ADD COLUMN previous_status TEXT",
    f"INSERT INTO job_count SELECT {_KEY}, COUNT(*) FROM job WHERE NOT deleted GROUP BY {_KEY}",  # noqa: S608  # our own text
    "INSERT INTO job_name_count "
    "SELECT name, user_id, COUNT(*) FROM job WHERE NOT deleted GROUP BY name, user_id",
    "DROP INDEX jobrow_status_queue_name",
    "DROP INDEX jobrow_task_open_status",
    "DROP INDEX jobrow_deleted",
    "DROP INDEX jobrow_user_id_created_at_ms_job_id",
    "CREATE INDEX job_user_id ON job (user_id, created_at_ms, job_id)",
    # With all that is asked of waiting jobs.
    "CREATE INDEX job_status ON job (status, created_at_ms, job_id, queue_name, priority, user_id, deleted)",
    "CREATE INDEX job_queue_name ON job (queue_name, created_at_ms, job_id)",
    "CREATE INDEX job_source_type ON job (source_type, created_at_ms, job_id)",
    "CREATE INDEX job_name ON job (name, created_at_ms, job_id)",
    "CREATE INDEX job_pinned ON job (created_at_ms, job_id) WHERE pinned",
    "CREATE INDEX job_deleted ON job (job_id) WHERE deleted",
    "CREATE INDEX job_task_open ON job (job_id, status) WHERE task_open",
    "CREATE INDEX attempt_open ON attempt (job_id, attempt) WHERE completed_at_ms IS NULL",
)


def up(migrator: Any, db: Any) -> None:
    """Create two tables, count what there is, and replace indexes."""

    class JobCountRow(Model):
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
        name = TextField()
        user_id = TextField()
        jobs = BigIntegerField()

        class Meta:
            table_name = "job_name_count"
            primary_key = CompositeKey("name", "user_id")
            without_rowid = True

    tables = [JobCountRow, JobNameCountRow]
    with db.bind_ctx(tables):
        db.create_tables(tables)
    for statement in _STATEMENTS:
        db.execute_sql(statement)
