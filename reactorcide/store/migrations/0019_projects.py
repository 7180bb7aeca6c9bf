"""Projects, their members, and the project of a run."""

from typing import Any

from peewee import BigIntegerField, BlobField, CompositeKey, IntegerField, Model, TextField

_STATEMENTS = (
    "ALTER TABLE run ADD COLUMN project_id TEXT",
    "DROP INDEX run_number",
    "CREATE UNIQUE INDEX run_number ON run (user_id, number) WHERE project_id IS NULL",
    "CREATE UNIQUE INDEX run_project_number ON run (project_id, number) WHERE project_id IS NOT NULL",
    "CREATE INDEX run_project ON run (project_id, created_at_ms, run_id) WHERE project_id IS NOT NULL",
)


def up(migrator: Any, db: Any) -> None:
    """Create two tables, a column and its indexes."""

    class ProjectRow(Model):
        project_id = TextField(primary_key=True)
        name = TextField(unique=True)
        git_url = TextField()
        visibility = TextField()
        last_run_number = IntegerField()
        created_at_ms = BigIntegerField()
        updated_at_ms = BigIntegerField()
        sealed = BlobField()

        class Meta:
            table_name = "project"

    class ProjectMemberRow(Model):
        project_id = TextField()
        user_id = TextField(index=True)
        role = TextField()

        class Meta:
            table_name = "project_member"
            primary_key = CompositeKey("project_id", "user_id")

    tables = [ProjectRow, ProjectMemberRow]
    with db.bind_ctx(tables):
        db.create_tables(tables)
    for statement in _STATEMENTS:
        db.execute_sql(statement)
